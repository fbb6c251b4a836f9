//! The checks, each a question to the kernel, which knows best.

use std::fs;

use super::super::inventory::{self, Openers, State, Thing};
use super::super::show;
use super::{Finding, Verdict};
use crate::channel::{fifo, mqueue, semaphore, socket};
use crate::os::{self, facts};
use facts::{Feature, Resource};

fn finding(about: &'static str, verdict: Verdict, found: impl Into<String>) -> Finding {
    Finding {
        about,
        verdict,
        found: found.into(),
        remedy: None,
    }
}

fn good(about: &'static str, found: impl Into<String>) -> Finding {
    finding(about, Verdict::Good, found)
}

impl Finding {
    fn remedy(mut self, remedy: impl Into<String>) -> Finding {
        self.remedy = Some(remedy.into());
        self
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path)
        .ok()
        .map(|text| text.trim().to_owned())
}

/// The value of a line `key: value` in a file.
fn field(path: &str, key: &str) -> Option<String> {
    read(path)?.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}

/// All of them, what is needed first.
pub(super) fn all() -> Vec<Finding> {
    let mut findings = vec![kernel()];
    findings.extend(needed());
    findings.push(space());
    findings.push(descriptors());
    findings.extend([waiting(), huge_pages(), queues(), signals()]);
    findings.extend(processors());
    findings.extend([machine(), sandbox()]);
    findings.push(automatic());
    findings.push(left_over());
    findings
}

fn kernel() -> Finding {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
    let version = (next(), next());
    if version < (5, 3) {
        return finding("kernel", Verdict::Bad, format!("Linux {release}"))
            .remedy("use 5.3 or later: before, a death cannot be told for certain (pidfd)");
    }
    good("kernel", format!("Linux {release}"))
}

/// Features of the kernel without which rings cannot be made, or not as safely.
fn needed() -> Vec<Finding> {
    let sandboxed = "a sandbox (seccomp) or a very old kernel refuses it: allow the system call";
    let table = [
        (
            Feature::Futex,
            "futex",
            "waiting without a futex: create rings with wait=semaphore",
        ),
        (
            Feature::Memfd,
            "memfd_create",
            "rings without a name cannot be made: give rings names",
        ),
        (
            Feature::Seals,
            "file seals",
            "rings cannot be passed over sockets: give rings names",
        ),
        (
            Feature::OfdLocks,
            "OFD locks",
            "deaths cannot be told: no ring can be made",
        ),
        (
            Feature::Pidfd,
            "pidfd_open",
            "the death of a process that forked may go unnoticed",
        ),
        (
            Feature::TmpFile,
            "O_TMPFILE",
            "rings cannot be named: /dev/shm must be a tmpfs",
        ),
        (
            Feature::EventFd,
            "eventfd",
            "wait=eventfd cannot be had: use another strategy",
        ),
    ];
    let mut findings = Vec::new();
    let mut have = Vec::new();
    for (feature, name, without) in table {
        match facts::probe(feature) {
            Ok(()) => have.push(name),
            Err(error) => {
                let verdict = match feature {
                    Feature::Pidfd | Feature::EventFd => Verdict::Hint,
                    _ => Verdict::Bad,
                };
                findings
                    .push(finding(name, verdict, format!("{error}: {without}")).remedy(sandboxed));
            }
        }
    }
    if !have.is_empty() {
        findings.insert(0, good("system calls", have.join(", ")));
    }
    findings
}

fn space() -> Finding {
    const LITTLE: u64 = 16 << 20;
    match facts::space(c"/dev/shm") {
        Ok((total, free)) => {
            let found = format!(
                "{} free of {}",
                show::bytes(free as f64),
                show::bytes(total as f64)
            );
            if free >= LITTLE {
                return good("/dev/shm", found);
            }
            let verdict = if free < 1 << 20 {
                Verdict::Bad
            } else {
                Verdict::Hint
            };
            finding("/dev/shm", verdict, found).remedy(
                "mount -o remount,size=1G /dev/shm; in a container: docker run --shm-size=1g; \
                 or remove what the dead have left: ringway clean",
            )
        }
        Err(error) => finding("/dev/shm", Verdict::Bad, error.to_string())
            .remedy("mount -t tmpfs tmpfs /dev/shm, or give rings paths on another tmpfs"),
    }
}

/// A limit as people read it.
fn shown(limit: Option<u64>) -> String {
    limit.map_or("unlimited".into(), |limit| limit.to_string())
}

fn descriptors() -> Finding {
    let Ok(limit) = facts::limit(Resource::Descriptors) else {
        return finding("descriptors", Verdict::Hint, "the limit cannot be read");
    };
    let found = format!(
        "{} for a process (it may raise that to {}); a ring takes 4",
        shown(limit.soft),
        shown(limit.hard)
    );
    if limit.soft.is_some_and(|soft| soft < 256) {
        return finding("descriptors", Verdict::Hint, found).remedy("ulimit -n 4096");
    }
    good("descriptors", found)
}

fn waiting() -> Finding {
    match facts::probe(Feature::FutexWaitv) {
        Ok(()) => good(
            "futex_waitv",
            "waiting for many rings at once is one system call",
        ),
        Err(error) => finding("futex_waitv", Verdict::Hint, format!("{error}")).remedy(
            "a Selector falls back to epoll; Linux 5.16 has it, unless a sandbox forbids it",
        ),
    }
}

fn huge_pages() -> Finding {
    let pages = field("/proc/meminfo", "HugePages_Free").and_then(|n| n.parse::<u64>().ok());
    let transparent = read("/sys/kernel/mm/transparent_hugepage/shmem_enabled").unwrap_or_default();
    let transparent = transparent
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or("unknown", |(chosen, _)| chosen);
    let found = format!(
        "{} free in the pool, transparent ones for shared memory: {transparent}",
        pages.unwrap_or(0)
    );
    match pages {
        Some(1..) if facts::probe(Feature::HugePages).is_ok() => good("huge pages", found),
        _ => finding("huge pages", Verdict::Hint, found).remedy(
            "only for large rings without a name (3 to 20 % faster): sysctl vm.nr_hugepages=64; \
             without them Config::huge_pages falls back to ordinary pages and says so",
        ),
    }
}

fn queues() -> Finding {
    let number = |name: &str| read(&format!("/proc/sys/fs/mqueue/{name}"));
    let (Some(depth), Some(size)) = (number("msg_max"), number("msgsize_max")) else {
        return finding("message queues", Verdict::Hint, "this kernel has none")
            .remedy("mq: falls back to other mechanisms in a list of endpoints");
    };
    let bytes = facts::limit(Resource::MessageQueues)
        .ok()
        .and_then(|limit| limit.soft);
    let mounted = facts::queues().is_ok();
    let bytes = bytes.map_or("no limit".into(), |bytes| show::bytes(bytes as f64));
    let found = format!("{depth} messages of {size} bytes, {bytes} for a user (ulimit -q)");
    match facts::probe(Feature::Queue) {
        Err(error) => finding("message queues", Verdict::Hint, format!("{error}; {found}"))
            .remedy("remove queues, or raise the limit: ulimit -q unlimited (as root)"),
        Ok(()) if !mounted => finding("message queues", Verdict::Hint, found)
            .remedy("to have `ringway list` show them: mount -t mqueue none /dev/mqueue"),
        Ok(()) => good("message queues", found),
    }
}

fn signals() -> Finding {
    let pending = facts::limit(Resource::Signals).map_or(None, |limit| limit.soft);
    let locked = facts::limit(Resource::LockedMemory).map_or(None, |limit| limit.soft);
    let locked = locked.map_or("unlimited".into(), |bytes| show::bytes(bytes as f64));
    let found = format!(
        "{} signals queued, {locked} of locked memory",
        shown(pending)
    );
    if pending.is_some_and(|pending| pending < 512) {
        return finding("other limits", Verdict::Hint, found).remedy("for signal: ulimit -i 4096");
    }
    good("other limits", found)
}

fn processors() -> Vec<Finding> {
    let allowed = os::processors();
    let count = allowed.count_ones();
    let online = read("/sys/devices/system/cpu/online").unwrap_or_else(|| "unknown".into());
    let quota = read("/sys/fs/cgroup/cpu.max").filter(|quota| !quota.starts_with("max"));
    let mut found = format!("{count} for this process (online: {online})");
    let limited = quota.and_then(|quota| {
        let mut numbers = quota.split_ascii_whitespace().map(str::parse::<f64>);
        Some(numbers.next()?.ok()? / numbers.next()?.ok()?)
    });
    if let Some(limit) = limited {
        found += &format!(", {limit:.1} of them by the control group");
    }
    let few = count < 2 || limited.is_some_and(|limit| limit < 2.0);
    let processors = if few {
        finding("processors", Verdict::Hint, found).remedy(
            "spinning for a peer that has no processor of its own is waste: keep wait=adaptive, \
             which then sleeps almost at once, or use wait=futex",
        )
    } else {
        good("processors", found)
    };
    vec![processors, topology(allowed)]
}

/// Which processors lie near each other.
fn topology(allowed: u64) -> Finding {
    let all = (0..64).filter(|cpu| allowed >> cpu & 1 == 1);
    let mut groups = Vec::new();
    let (mut siblings, mut caches) = (false, false);
    for cpu in all {
        let at = format!("/sys/devices/system/cpu/cpu{cpu}");
        let threads = read(&format!("{at}/topology/thread_siblings_list"));
        siblings |= threads.is_some_and(|list| list.contains([',', '-']));
        if let Some(shared) = read(&format!("{at}/cache/index3/shared_cpu_list")) {
            caches = true;
            if !groups.contains(&shared) {
                groups.push(shared);
            }
        }
    }
    let nodes = fs::read_dir("/sys/devices/system/node").map_or(1, |nodes| {
        let names = nodes
            .flatten()
            .filter_map(|node| node.file_name().into_string().ok());
        names
            .filter(|name| {
                name.strip_prefix("node")
                    .is_some_and(|n| n.parse::<u32>().is_ok())
            })
            .count()
            .max(1)
    });
    let caches = match (caches, groups.as_slice()) {
        (false, _) => "which share a cache is unknown".into(),
        (_, [_]) => "all share their last cache".into(),
        (_, groups) => format!("these share their last cache: {}", groups.join(" | ")),
    };
    let threads = if siblings {
        ", some are threads of one core"
    } else {
        ""
    };
    let found = format!("{nodes} memory node(s), {caches}{threads}");
    if nodes > 1 || groups.len() > 1 {
        return finding("topology", Verdict::Hint, found).remedy(
            "a line takes several times as long between groups: pin both ends into one group \
             (taskset -c), and measure with ringway bench",
        );
    }
    good("topology", found)
}

fn machine() -> Finding {
    let flags = field("/proc/cpuinfo", "flags").unwrap_or_default();
    let has = |wanted: &str| flags.split_ascii_whitespace().any(|flag| flag == wanted);
    let product = read("/sys/class/dmi/id/product_name").unwrap_or_default();
    let model =
        field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.into());
    if has("hypervisor") {
        let found = format!("{model}, virtual ({product})").replace(" ()", "");
        return finding("machine", Verdict::Hint, found).remedy(
            "the host moves virtual processors about and waking one is slow (10 to 50 µs): compare \
             figures within one run only, and pin virtual processors on the host if you can",
        );
    }
    if cfg!(target_arch = "x86_64") && !has("cx16") {
        return finding("machine", Verdict::Hint, model)
            .remedy("without cmpxchg16b rings of items use the general form");
    }
    good("machine", model)
}

fn sandbox() -> Finding {
    let mode = field("/proc/self/status", "Seccomp").unwrap_or_default();
    match mode.as_str() {
        "0" | "" => good("sandbox", "no system calls are filtered"),
        _ => finding(
            "sandbox",
            Verdict::Good,
            "system calls are filtered (seccomp); see above for which",
        ),
    }
}

/// What `auto:` would take, and why not what is better: each is really made.
fn automatic() -> Finding {
    let name = format!("doctor-{}", std::process::id());
    let path = |kind: &str| os::directory().join(format!("ringway.{name}.{kind}"));
    let ring = || {
        let config = crate::spsc::Config::default().capacity(4096);
        crate::spsc::create(&name, config).map(drop)
    };
    let semaphore = || {
        let sender = semaphore::Sender::open(&name, Default::default());
        sender.map(|mut sender| crate::channel::Sender::close(&mut sender))
    };
    let socket = || socket::Receiver::open(path("sock"), Default::default()).map(drop);
    let fifo = || fifo::Receiver::open(path("fifo"), Default::default()).map(drop);
    let queue = || mqueue::Sender::open(&format!("ringway.{name}"), Default::default()).map(drop);
    type Try<'a> = (&'static str, &'a dyn Fn() -> Result<(), crate::Error>);
    let tries: [Try<'_>; 5] = [
        ("ring", &ring),
        ("sem", &semaphore),
        ("unix", &socket),
        ("fifo", &fifo),
        ("mq", &queue),
    ];
    let mut refused = Vec::new();
    let mut usable: Vec<&str> = Vec::new();
    for (mechanism, attempt) in tries {
        match attempt() {
            Ok(()) => usable.push(mechanism),
            Err(error) => refused.push(format!("{mechanism}: {error}")),
        }
    }
    match usable.first() {
        Some(&"ring") if refused.is_empty() => {
            good("auto:", "takes a ring; all it can fall back to works, too")
        }
        Some(first) => {
            let found = format!("takes {first}; {}", refused.join("; "));
            let verdict = if *first == "ring" {
                Verdict::Good
            } else {
                Verdict::Hint
            };
            finding("auto:", verdict, found)
        }
        None => finding("auto:", Verdict::Bad, refused.join("; "))
            .remedy("nothing by which two processes can meet works here"),
    }
}

fn left_over() -> Finding {
    left(&inventory::find(&[], &Openers::find()))
}

fn left(things: &[Thing]) -> Finding {
    let count = |state| inventory::names(things, state).len();
    let live = things.iter().filter(|thing| thing.state == State::Live);
    let kinds = [
        (
            State::Dead,
            "names of the dead",
            "ringway clean shows the dead, ringway clean --yes removes them",
        ),
        (
            State::Undelivered,
            "in which messages wait for nobody",
            "receive what waits, or ringway clean --undelivered --yes",
        ),
        (
            State::Unknown,
            "that cannot be told",
            "ringway list says why it cannot, ringway rm NAME what to do",
        ),
    ];
    let left = kinds.iter().filter(|(state, ..)| count(*state) > 0);
    let found: Vec<_> = left
        .clone()
        .map(|(state, what, _)| format!("{} {what}", count(*state)))
        .chain([format!("{} in use", live.count())])
        .collect();
    let remedies: Vec<_> = left.map(|(.., remedy)| *remedy).collect();
    if remedies.is_empty() {
        return good("left behind", format!("nothing; {}", found[0]));
    }
    finding("left behind", Verdict::Hint, found.join(", ")).remedy(remedies.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::inventory::Kind;

    #[test]
    fn what_is_left_is_told_with_its_remedy_and_what_has_no_name_is_not_left() {
        let thing = |path: &str, state| Thing {
            kind: Kind::Spsc,
            name: path.into(),
            path: path.into(),
            owner: String::new(),
            bytes: 0,
            fill: None,
            state,
            why: None,
            age: 0,
            participants: Vec::new(),
            id: (0, 0),
        };
        let nameless = thing("/proc/1/fd/4", State::Dead);
        let live = thing("/dev/shm/ringway.live", State::Live);
        let mut things = vec![nameless, live];
        let seen = left(&things);
        assert_eq!(
            (seen.verdict, &*seen.found),
            (Verdict::Good, "nothing; 1 in use")
        );
        for (state, what, remedy) in [
            (State::Dead, "1 names of the dead", "clean --yes"),
            (State::Undelivered, "1 in which messages", "--undelivered"),
            (State::Unknown, "1 that cannot be told", "ringway rm"),
        ] {
            things.push(thing("/dev/shm/ringway.left", state));
            let seen = left(&things);
            assert_eq!(seen.verdict, Verdict::Hint);
            assert!(seen.found.contains(what), "{seen:?}");
            assert!(seen.remedy.is_some_and(|said| said.contains(remedy)));
        }
    }
}
