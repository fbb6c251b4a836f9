//! Who else uses the processors.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::os::measure;

/// More than this share of one processor is worth a warning.
const MUCH: f64 = 0.1;

/// What the kernel has counted so far, in ticks of the clock.
pub(crate) struct Snapshot {
    at: Instant,
    /// All processors together.
    busy: u64,
    /// What the host of a virtual machine took for itself.
    stolen: u64,
    /// This process and its children that have ended, in seconds.
    own: f64,
    /// Name and ticks of each process, as far as they can be seen from here.
    processes: BTreeMap<u32, (String, u64)>,
}

impl Snapshot {
    /// Now; `None` where `/proc` does not say.
    pub(crate) fn take() -> Option<Snapshot> {
        let text = std::fs::read_to_string("/proc/stat").ok()?;
        let mut fields = text.lines().next()?.split_ascii_whitespace().skip(1);
        let mut field = || fields.next()?.parse::<u64>().ok();
        // user, nice, system, idle, iowait, irq, softirq, steal
        let [user, nice, system, _, _, irq, softirq, stolen] = [
            field()?,
            field()?,
            field()?,
            field()?,
            field()?,
            field()?,
            field()?,
            field()?,
        ];
        let processes = std::fs::read_dir("/proc")
            .ok()?
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|&pid: &u32| pid != std::process::id())
            .filter_map(|pid| {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
                Some((pid, process(&stat)?))
            })
            .collect();
        Some(Snapshot {
            at: Instant::now(),
            busy: user + nice + system + irq + softirq,
            stolen,
            own: measure::seconds_with_children(),
            processes,
        })
    }

    /// What happened between `earlier` and this: warnings, with the remedy.
    pub(crate) fn since(&self, earlier: &Snapshot) -> Vec<String> {
        let mut warnings = Vec::new();
        let seconds = (self.at - earlier.at).as_secs_f64().max(1e-3);
        let rate = measure::ticks_a_second();
        let ticks = |now: u64, then: u64| now.saturating_sub(then) as f64 / rate;
        let others = (ticks(self.busy, earlier.busy) - (self.own - earlier.own)) / seconds;
        if others > MUCH {
            let busiest = self
                .processes
                .iter()
                .filter_map(|(pid, (name, now))| {
                    let (before, then) = earlier.processes.get(pid)?;
                    (before == name).then(|| (ticks(*now, *then) / seconds, name, pid))
                })
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .filter(|&(share, ..)| share > MUCH / 2.0);
            let who = busiest.map_or_else(
                || "none of those that can be seen from here for long".into(),
                |(share, name, pid)| format!("most of all `{name}` (process {pid}: {share:.1})"),
            );
            warnings.push(format!(
                "other processes kept {others:.1} CPUs busy, {who}; end them, wait for them, or \
                 give CPUs that they do not use with --cpus"
            ));
        }
        let stolen = ticks(self.stolen, earlier.stolen) / seconds;
        if stolen > MUCH / 2.0 {
            warnings.push(format!(
                "the host took {:.0} % of a CPU's time away from this virtual machine; measure \
                 when it is less busy",
                stolen * 100.0
            ));
        }
        warnings
    }
}

/// Name and ticks from a line of `/proc/PID/stat`: the name stands in parentheses and may hold any
/// character; the 12th and 13th field after it are user and system time.
fn process(stat: &str) -> Option<(String, u64)> {
    let (before, after) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let mut fields = after.split_ascii_whitespace().skip(11);
    let mut field = || fields.next()?.parse::<u64>().ok();
    Some((name.to_owned(), field()? + field()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let stat = "17 (a) b( c) R 1 17 17 0 -1 4194560 98 0 0 0 31 11 0 0 20 0 1 0 8 0 0";
        assert_eq!(process(stat), Some(("a) b( c".into(), 42)));
        assert_eq!(process("17 (cut"), None);
    }

    #[test]
    fn what_others_used_is_said_by_name_with_a_remedy() {
        let earlier = Snapshot {
            at: Instant::now(),
            busy: 1000,
            stolen: 0,
            own: 1.0,
            processes: BTreeMap::from([(7, ("cc".into(), 10)), (8, ("quiet".into(), 10))]),
        };
        let ticks = |seconds: f64| (seconds * measure::ticks_a_second()) as u64;
        let later = |busy: f64, stolen: f64| Snapshot {
            at: earlier.at + std::time::Duration::from_secs(10),
            busy: 1000 + ticks(busy),
            stolen: ticks(stolen),
            own: 11.0,
            processes: BTreeMap::from([
                (7, ("cc".into(), 10 + ticks(6.0))),
                (8, ("quiet".into(), 10)),
            ]),
        };
        assert_eq!(later(10.5, 0.1).since(&earlier), [""; 0], "our own use");
        let warnings = later(17.0, 2.0).since(&earlier);
        assert!(warnings[0].contains("0.7 CPUs") && warnings[0].contains("`cc` (process 7: 0.6)"));
        assert!(warnings[0].contains("--cpus"));
        assert!(warnings[1].contains("20 %"));
    }
}
