//! The machine a result belongs to, and what about it makes results doubtful.

use serde::Serialize;

/// The head of every output.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) version: &'static str,
    pub(crate) date: String,
    pub(crate) cpu: String,
    pub(crate) cpus_online: usize,
    pub(crate) virtual_machine: bool,
    pub(crate) kernel: String,
    pub(crate) governor: Option<String>,
    /// Whether frequencies may go above the nominal one.
    pub(crate) boost: bool,
    /// The leader's processor and the follower's.
    pub(crate) pinning: [usize; 2],
    pub(crate) command: String,
    /// What makes the results doubtful, found before and after.
    pub(crate) warnings: Vec<String>,
}

impl Machine {
    /// This machine, now.
    pub(crate) fn here(pinning: [usize; 2]) -> Machine {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            info.lines()
                .find_map(|line| line.strip_prefix(name)?.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
        };
        Machine {
            version: env!("CARGO_PKG_VERSION"),
            date: date(),
            cpu: field("model name").unwrap_or_else(|| std::env::consts::ARCH.into()),
            cpus_online: info.lines().filter(|l| l.starts_with("processor")).count(),
            virtual_machine: field("flags").is_some_and(|flags| {
                flags
                    .split_ascii_whitespace()
                    .any(|flag| flag == "hypervisor")
            }),
            kernel: read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".into()),
            governor: read(&format!(
                "/sys/devices/system/cpu/cpu{}/cpufreq/scaling_governor",
                pinning[0]
            )),
            boost: read("/sys/devices/system/cpu/cpufreq/boost").as_deref() == Some("1")
                || read("/sys/devices/system/cpu/intel_pstate/no_turbo").as_deref() == Some("0"),
            pinning,
            warnings: Vec::new(),
            command: std::iter::once("ringway".to_owned())
                .chain(std::env::args().skip(1))
                .collect::<Vec<_>>()
                .join(" "),
        }
    }

    /// What makes results on this machine doubtful before anything is measured, with the remedy.
    pub(crate) fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        if self.virtual_machine {
            doubts.push(
                "this is a virtual machine: its host may move the processors about between \
                 repetitions; compare rows of one placement only, or measure on the host"
                    .into(),
            );
        }
        if let Some(governor) = &self.governor
            && governor != "performance"
        {
            doubts.push(format!(
                "the frequency governor is `{governor}`: speeds change while measuring; set it \
                 with `cpupower frequency-set -g performance`"
            ));
        }
        if self.boost {
            doubts.push(
                "the processor may raise its frequency while it is cool (boost): speeds change \
                 while measuring; write 0 to /sys/devices/system/cpu/cpufreq/boost, or 1 to \
                 /sys/devices/system/cpu/intel_pstate/no_turbo"
                    .into(),
            );
        }
        let [first, second] = self.pinning;
        if first == second {
            doubts.push(format!(
                "both processes share CPU {first}: waits that spin only lose time here; give two \
                 CPUs with --cpus to compare them"
            ));
        } else if shares("topology/thread_siblings_list", first, second) == Some(true) {
            doubts.push(format!(
                "CPUs {first} and {second} are two threads of one core, which spinning shares; \
                 give CPUs of two cores with --cpus, unless this is what you want to know"
            ));
        }
        doubts
    }

    /// What to do about two CPUs that turned out to be far apart.
    pub(crate) fn far_remedy(&self) -> String {
        let [first, second] = self.pinning;
        let near = read(&format!(
            "/sys/devices/system/cpu/cpu{first}/cache/index3/shared_cpu_list"
        ));
        match near {
            Some(near) if shares("cache/index3/shared_cpu_list", first, second) == Some(false) => {
                format!("CPU {first} shares its cache with {near}: give one of those with --cpus")
            }
            _ if self.virtual_machine => {
                "it is the host that placed them so; compare rows of one placement only".into()
            }
            _ => "give two that share a cache with --cpus".into(),
        }
    }
}

/// A file's text.
fn read(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

/// Whether the list of CPUs in file `what` of CPU `first` has `second`; `None` where it is not known.
fn shares(what: &str, first: usize, second: usize) -> Option<bool> {
    let list = read(&format!("/sys/devices/system/cpu/cpu{first}/{what}"))?;
    Some(lists(&list, second))
}

/// Whether a list such as `0-3,8` has `cpu`.
fn lists(list: &str, cpu: usize) -> bool {
    list.split(',').any(|part| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let bounds = (low.trim().parse::<usize>(), high.trim().parse::<usize>());
        matches!(bounds, (Ok(low), Ok(high)) if (low..=high).contains(&cpu))
    })
}

/// The date and time in UTC, as ISO 8601 has it.
fn date() -> String {
    let seconds = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z",
        seconds % 60
    )
}

/// Year, month and day of the day `days` after 1970-01-01 (the proleptic Gregorian calendar, in
/// years that begin in March so that the leap day comes last).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    #[test]
    fn lists_of_processors_are_understood() {
        for (list, cpu, has) in [
            ("0-3,8", 2, true),
            ("0-3,8", 8, true),
            ("0-3,8", 4, false),
            ("1", 1, true),
            ("", 0, false),
        ] {
            assert_eq!(super::lists(list, cpu), has, "{cpu} in {list:?}");
        }
    }

    #[test]
    fn days_become_dates() {
        assert_eq!(super::civil(0), (1970, 1, 1));
        assert_eq!(super::civil(19_782), (2024, 2, 29));
        assert_eq!(super::civil(20_453), (2025, 12, 31));
    }
}
