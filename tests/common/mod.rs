//! What every integration test uses.
#![allow(dead_code, unreachable_pub)] // each test binary uses its own part

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[cfg(feature = "cli")]
pub mod terminal;

/// Ends the whole test process, saying which test hung, unless it is dropped within `limit`.
pub struct Watchdog(Arc<AtomicBool>);

/// A watchdog for the running test, with a generous limit: it is there for hangs only.
pub fn watchdog(seconds: u64) -> Watchdog {
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    let done = Arc::new(AtomicBool::new(false));
    let seen = done.clone();
    std::thread::spawn(move || {
        let limit = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < limit {
            if seen.load(Ordering::Acquire) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        eprintln!("watchdog: {name} hung for {seconds} s");
        std::process::abort();
    });
    Watchdog(done)
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Runs this very test binary again as another process, in which the test function `entry` sees
/// the variable `RINGWAY_TEST_CHILD`.
pub fn child(entry: &str, what: &str) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().expect("own path"));
    command
        .args([entry, "--exact", "--nocapture", "--test-threads=1"])
        .env("RINGWAY_TEST_CHILD", what)
        .env("RUST_BACKTRACE", "0"); // takes minutes when single-stepped
    command
}

/// What this process is to do, if it was started by [`child`].
pub fn task() -> Option<String> {
    std::env::var("RINGWAY_TEST_CHILD").ok()
}

/// Kills the child when the test ends, however it ends.
pub struct Reaped(pub std::process::Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `condition` holds, looking often; the test's watchdog bounds it.
pub fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// This thread, for [`sleeps`].
pub fn this_thread() -> i32 {
    nix::unistd::gettid().as_raw()
}

/// Whether that thread of this process waits in the kernel.
pub fn sleeps(thread: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.starts_with('S')
}

/// No file of that name is left: no FIFO, socket, shared memory or semaphore.
pub fn assert_no_file_left(name: &str) {
    for directory in ["/tmp", "/dev/shm"] {
        for entry in std::fs::read_dir(directory).unwrap() {
            let file = entry.unwrap().file_name();
            let file = file.to_string_lossy();
            assert!(!file.contains(name), "{directory}/{file} is left");
        }
    }
}

/// A small, seeded generator, so that a failure can be run again.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Whether this user may do anything.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Says that the running test does not show something here, and why: past the capturing of what tests
/// print, so that a run which shows less than it could does not look like one that shows all.
pub fn not_shown(why: &str) {
    use std::io::Write;
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("?");
    let _ = writeln!(std::io::stderr(), "not shown here by {name}: {why}");
}

/// Whether this user may do anything, without which `what` cannot be shown; if not, that is said.
pub fn root_for(what: &str) -> bool {
    if !is_root() {
        not_shown(&format!("{what} takes root"));
    }
    is_root()
}

/// Whether the deep version was asked for (`tests/deep`): everything, however long it takes.
pub fn deep() -> bool {
    std::env::var_os("RINGWAY_DEEP").is_some()
}
