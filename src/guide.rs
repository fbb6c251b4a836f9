//! A guide: moving to Ringway from pipes, channels or another library; operating it; and what to do
//! when something looks wrong. There is nothing to call in this module.
//!
//! # Moving from pipes
//!
//! | with a pipe | with a ring |
//! | --- | --- |
//! | `pipe()` and `fork` | [`spsc::Ring::anonymous`](crate::spsc::Ring::anonymous); a child takes its role from the `Ring` that it inherits |
//! | `mkfifo` and two programs | [`spsc::create_or_attach`](crate::spsc::create_or_attach) with one name in both |
//! | `write`, in pieces that have to be put together again | [`send`](crate::spsc::Producer::send): a message arrives whole or not at all |
//! | `read` into a buffer | [`recv_into`](crate::spsc::Consumer::recv_into); or [`recv`](crate::spsc::Consumer::recv), without the copy |
//! | end of file | [`RecvError::Closed`](crate::RecvError::Closed), told from [`PeerDied`](crate::RecvError::PeerDied) |
//! | `EPIPE`, and SIGPIPE | [`SendError::Closed`](crate::SendError::Closed), when there is no room left; no signal |
//! | what was in the pipe is lost with its reader | it stays, and a successor goes on |
//! | `poll` | a ring with wait strategy `EventFd`, or a [`channel`](crate::channel) |
//! | `a \| b` in a shell | `ringway run a b`, or [`stage`](crate::stage) in both programs |
//!
//! A pipe of a shell stays a pipe where a program wants one: [`stage`](crate::stage) reads records
//! from standard input when it was not given a ring. To try without changing programs, name the
//! endpoint in the configuration: [`Endpoint`](crate::Endpoint) `fifo:/run/x` today, `ring:x` tomorrow.
//!
//! # Moving from channels
//!
//! From `std::sync::mpsc` or `crossbeam_channel`, between threads, to processes:
//!
//! * What is sent is bytes, or a plain value ([`spsc::typed`](mod@crate::spsc::typed),
//!   [`mpmc::typed`](mod@crate::mpmc::typed)); no pointers, no `String`. Serialise what is more than that.
//! * There is no unbounded ring. `send` waits when it is full, `try_send` says so.
//! * `Sender::clone` is [`mpmc::Producer::clone`](crate::mpmc::Producer). An
//!   [`spsc`](crate::spsc) handle can be moved to another thread, and has no clone.
//! * Dropping the last handle closes, as you are used to. A peer that was *killed* is another matter, and
//!   another error: decide whether a successor will come, and go on waiting if so.
//!
//! ```
//! // let (tx, rx) = std::sync::mpsc::sync_channel(16);
//! let ring = ringway::spsc::Ring::anonymous(Default::default())?;
//! let (mut tx, mut rx) = (ring.producer()?, ring.consumer()?);
//! let worker = std::thread::spawn(move || tx.send(&42u64.to_le_bytes()));
//! assert_eq!(rx.recv()?[..], 42u64.to_le_bytes());
//! worker.join().unwrap()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Moving from iceoryx2
//!
//! | in iceoryx2 | here |
//! | --- | --- |
//! | a service, publish–subscribe | [`broadcast`](crate::broadcast), lossless or lossy |
//! | a service with one publisher and one subscriber | [`spsc`](crate::spsc) |
//! | request–response | two rings, one each way |
//! | `loan`, `send` | [`reserve`](crate::spsc::Producer::reserve), [`commit`](crate::spsc::Reservation::commit) |
//! | `ZeroCopySend` types | [`typed`](mod@crate::spsc::typed) rings: `zerocopy`'s traits, and a version of your own |
//! | slices with `initial_max_slice_len` | messages of any length, up to a little under half of the ring |
//! | events, wait sets | blocking calls on the ring itself; nothing to be wired up |
//! | nodes, monitoring, cleaning up dead nodes | nothing to do: the kernel tells of deaths, the next user of a name takes over; `ringway clean` for what nobody ever takes up again |
//! | a configuration file, files in `/tmp/iceoryx2` | one file a ring, `/dev/shm/ringway.NAME` |
//!
//! What is not here: other systems than Linux, C and C++ bindings, discovery of services.
//!
//! # Operating
//!
//! ```text
//! ringway list              what is there, who uses it, how full it is
//! ringway top               the same, live, with rates, stalls and deaths
//! ringway inspect NAME      one ring: header, counters, the messages that wait
//! ringway tap NAME          watch messages pass, without taking them
//! ringway stats --prometheus
//! ringway clean             what the dead have left; --yes removes it
//! ringway doctor            what this machine lacks, and the remedy
//! ```
//!
//! The first five only look on: they take no role, hold no lock, write nothing, and read a ring's file rather
//! than map it (`tap` maps a broadcast ring, without the permission to write). A program can do the same with
//! [`observe`](crate::observe). `clean` holds the lock on presence while it takes a name away, so that it races
//! with nobody who comes; `doctor` makes one of each mechanism, under a name of its own, and removes it again.
//!
//! # When something looks wrong
//!
//! **"create it first, or use create_or_attach".** There is nothing of that name. Either side may create: use `create_or_attach` in both.
//! In containers, `/dev/shm` is each container's own: share it (`--ipc=container:NAME`, or one
//! volume on `/dev/shm`), or give the ring the path of a file on a tmpfs that both have mounted.
//!
//! **"of that name exists; attach to it".** Somebody is attached; `ringway list` shows who. A name whose
//! owners are all dead does not stand in the way.
//!
//! **"no room" when creating.** `/dev/shm` is full or small; Docker gives 64 MiB (`--shm-size`).
//! `ringway doctor` has the figures, `ringway clean` removes what the dead have left.
//!
//! **"it already has a producer (process 4711)".** Roles are exclusive in an spsc ring. If that process should be
//! gone, look at it: stopped (SIGSTOP, a debugger) is not dead. If several are to send, take [`mpmc`](crate::mpmc).
//!
//! **A sender hangs.** The ring is full and its consumer lives, but does not take anything. `ringway top` shows
//! it full, and whether the consumer is stopped; a message that is borrowed and never dropped
//! also holds everything behind it. Use `send_timeout` where waiting is no option.
//!
//! **"peer died: the sending process ended without detaching" (`PeerDied`), and then what?** Everything the dead one sent has been received. Call `recv`
//! again to wait for its successor, or end.
//!
//! **A message arrives twice.** Its first receiver was killed while it had it; the second delivery says
//! `redelivered`. Make what you do with a message harmless to repeat, or number messages and pass over those
//! that are done: the example `log_shipping` does.
//!
//! **It is slow, microseconds instead of nanoseconds.** One side sleeps (`parks` in `ringway inspect`): waking a
//! process takes the kernel 5 to 50 µs. If messages come seldom that is the price of not spinning; `Spin` never sleeps.
//! If both sides share one processor (`taskset -p PID`), give them two. On a virtual machine
//! compare with `ringway bench`, which shows the machine's own limits beside.
//!
//! **One processor is always busy.** The ring was created with `Spin`, or something calls `try_recv` in a loop.
//! `Adaptive`, the default, goes to sleep when nothing comes for a while.
//!
//! **"it carries", something else than "this program speaks" (`TypeMismatch`).** The ring carries another type, or another version of it, than this program
//! expects; the error prints both. Rebuild one side, or remove the name once nobody uses it: `ringway rm NAME`.
//!
//! **"corrupt:" (`Corrupt`).** Somebody wrote into the memory what no honest participant writes: another program with a bug,
//! or one that is not to be trusted. Nothing outside the ring was touched. Make the ring anew.
//!
//! **SIGBUS.** Somebody truncated the file of a named ring. Only who may write to it can; pass a
//! ring without a name over a Unix socket instead, or see [`survive_truncation`](crate::survive_truncation).
//!
//! **"this handle belongs to the process that attached it" (`Forked`).** Roles belong to the process that took them. Let the child
//! take its own from the `Ring`, which it may use.

#[cfg(test)]
mod tests {
    use crate::{Error, RecvError};

    #[test]
    fn what_a_symptom_quotes_is_what_an_error_says() {
        let name = String::new;
        let said = [
            Error::NotFound {
                what: "ring",
                name: name(),
            }
            .to_string(),
            Error::AlreadyExists {
                what: "ring",
                name: name(),
            }
            .to_string(),
            Error::NoRoom {
                name: name(),
                needed: name(),
                why: name(),
                remedy: name(),
            }
            .to_string(),
            Error::RoleTaken {
                name: name(),
                role: "producer",
                pid: 4711,
            }
            .to_string(),
            Error::TypeMismatch {
                name: name(),
                found: name(),
                expected: name(),
            }
            .to_string(),
            RecvError::PeerDied.to_string(),
            RecvError::Forked.to_string(),
            RecvError::Corrupt {
                what: "length",
                offset: 0,
            }
            .to_string(),
        ]
        .join("\n");
        let mut quoted = 0;
        for line in include_str!("guide.rs").lines() {
            let Some(heading) = line.strip_prefix("//! **") else {
                continue;
            };
            let heading = heading.split("**").next().unwrap_or_default();
            for phrase in heading.split('"').skip(1).step_by(2) {
                assert!(said.contains(phrase), "no error says {phrase:?}");
                quoted += 1;
            }
        }
        assert_eq!(quoted, 9);
    }
}
