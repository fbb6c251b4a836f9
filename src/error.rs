//! Errors: one for setting things up, one small enum for each operation on the data path.
//!
//! Every message of an [`Error`] names the thing it speaks of and, where there is one, the remedy. The
//! errors of the data path do not carry a name: whoever has the handle knows it. `Debug` shows
//! the same: a `main` that returns an error, and `unwrap`, print it by that.

use std::io;

/// What a `main` that fails prints is what `Debug` gives: so that is the message, too.
macro_rules! debug_is_display {
    ($error:ty) => {
        impl core::fmt::Debug for $error {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Display::fmt(self, f)
            }
        }
    };
}
pub(crate) use debug_is_display;

/// Why creating, attaching to, or configuring something failed.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is nothing under that name.
    #[error("{name}: no such {what}; {}", remedy_for_none(what))]
    NotFound {
        /// The kind of thing looked for ("ring", "message queue", ...).
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The name is taken by something that is alive.
    #[error(
        "{name}: a live {what} of that name exists; attach to it, choose another name, or use create_or_attach"
    )]
    AlreadyExists {
        /// The kind of thing found.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The file permissions refuse this user.
    #[error(
        "{name}: permission denied; it belongs to another user or its mode excludes you (its creator can choose the mode)"
    )]
    PermissionDenied {
        /// The name of the thing.
        name: String,
    },
    /// Something is there, but it is not what was asked for.
    #[error("{name}: not a {what}: {why}")]
    NotOurs {
        /// The kind of thing asked for.
        what: &'static str,
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// It was made by an incompatible version, or on a machine of another byte order.
    #[error(
        "{name}: layout version {found}, this program speaks {expected}; rebuild one side, or remove the name with `ringway rm`"
    )]
    Version {
        /// The name of the thing.
        name: String,
        /// The version found in it.
        found: u32,
        /// The version this program speaks.
        expected: u32,
    },
    /// The two sides disagree on what the ring carries or how it is built.
    #[error("{name}: {what} differs: it has {found}, you asked for {expected}")]
    Mismatch {
        /// The name of the thing.
        name: String,
        /// What differs ("slot size", "type", "wait strategy", ...).
        what: &'static str,
        /// The value found.
        found: String,
        /// The value asked for.
        expected: String,
    },
    /// The ring carries values of another type, or none.
    #[error(
        "{name}: it carries {found}, this program speaks {expected}; build both sides from one definition, or give the new one a ring of its own name (`ringway rm` takes the old one away)"
    )]
    TypeMismatch {
        /// The name of the ring.
        name: String,
        /// What it was created for: name, version, size and alignment.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// The role asked for is held by a living participant.
    #[error(
        "{name}: it already has a {role} (process {pid}); a second one can attach when that one has gone"
    )]
    RoleTaken {
        /// The name of the thing.
        name: String,
        /// The role asked for.
        role: &'static str,
        /// The process that holds it, as that process saw its own id.
        pid: u32,
    },
    /// There is no free participant record.
    #[error(
        "{name}: all {max} participant records are in use; create it with more, or detach some"
    )]
    TooManyParticipants {
        /// The name of the thing.
        name: String,
        /// How many there are.
        max: usize,
    },
    /// A setting cannot be used.
    #[error("{what} {value}: {why}; {remedy}")]
    Config {
        /// The setting ("capacity", "slot size", ...).
        what: &'static str,
        /// The value given.
        value: String,
        /// What is wrong with it.
        why: String,
        /// What to use instead.
        remedy: String,
    },
    /// There is no room for it: memory, a file system or a limit is exhausted.
    #[error("{name}: no room for {needed} ({why}); {remedy}")]
    NoRoom {
        /// The name of the thing.
        name: String,
        /// What was needed, with its unit.
        needed: String,
        /// What is exhausted.
        why: String,
        /// What to do about it.
        remedy: String,
    },
    /// The mechanism cannot do what was asked of it.
    #[error("{mechanism} cannot {what}; {remedy}")]
    Unsupported {
        /// The mechanism ("pipe", "wait strategy EventFd", ...).
        mechanism: &'static str,
        /// What it cannot do.
        what: &'static str,
        /// What to use instead.
        remedy: &'static str,
    },
    /// The mapping holds values that no honest peer writes.
    #[error("{name}: corrupt: {what} at offset {offset}")]
    Corrupt {
        /// The name of the thing.
        name: String,
        /// What is wrong.
        what: &'static str,
        /// Where in the mapping, in bytes.
        offset: u64,
    },
    /// A system call failed in a way that has no name of its own here.
    #[error("{op} {name}: {source}")]
    Os {
        /// The system call.
        op: &'static str,
        /// What it was applied to.
        name: String,
        /// The error of the operating system.
        source: io::Error,
    },
}

debug_is_display!(Error);

/// What to do where there is none of that kind.
fn remedy_for_none(what: &str) -> &'static str {
    match what {
        "directory" => "make it first (`mkdir -p`), or choose another",
        _ => "create it first, or use create_or_attach",
    }
}

impl Error {
    /// Wraps the failure of system call `op` applied to `name`, giving the common causes their
    /// own variant.
    pub(crate) fn os(op: &'static str, name: impl Into<String>, source: io::Error) -> Error {
        let name = name.into();
        match source.raw_os_error() {
            // Memory without a name is nobody else's: a sandbox forbids the call itself.
            Some(libc::EPERM) if op == "memfd_create" => Error::Os { op, name, source },
            Some(libc::EACCES | libc::EPERM) => Error::PermissionDenied { name },
            Some(libc::EMFILE | libc::ENFILE) => Error::NoRoom {
                name,
                needed: "one more file descriptor".into(),
                why: source.to_string(),
                remedy: "close some, or raise the limit with `ulimit -n`".into(),
            },
            Some(libc::ENOMEM) => Error::NoRoom {
                name,
                needed: "memory".into(),
                why: source.to_string(),
                remedy: "use a smaller capacity, or raise the memory limit".into(),
            },
            _ => Error::Os { op, name, source },
        }
    }
}

/// Why a message was not sent.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// There is no room now (only from the non-blocking calls).
    #[error("full: the receiver has not made room yet")]
    Full,
    /// There was no room within the given time.
    #[error("timed out: the receiver made no room in time")]
    TimedOut,
    /// The receiving side has left, or this side was closed.
    #[error("closed: the receiver has left")]
    Closed,
    /// Every receiver died without leaving.
    #[error("peer died: the receiving process ended without detaching; a successor may attach")]
    PeerDied,
    /// The message can never fit.
    #[error(
        "message of {len} bytes is larger than the maximum of {max}; send it as a stream, or use a larger capacity"
    )]
    MessageTooLarge {
        /// The length of the message, in bytes.
        len: usize,
        /// The largest length that can be sent, in bytes.
        max: usize,
    },
    /// The mapping holds a value that no honest peer writes.
    #[error("corrupt: {what} at offset {offset}")]
    Corrupt {
        /// What is wrong.
        what: &'static str,
        /// Where in the mapping, in bytes.
        offset: u64,
    },
    /// The handle was used in a forked child, where it is not valid.
    #[error("this handle belongs to the process that attached it; attach again in the child")]
    Forked,
    /// A system call failed.
    #[error("{op}: {source}")]
    Os {
        /// The system call.
        op: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
}

debug_is_display!(SendError);

/// Why no message was received.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// There is no message now (only from the non-blocking calls).
    #[error("empty: no message is waiting")]
    Empty,
    /// No message came within the given time.
    #[error("timed out: no message came in time")]
    TimedOut,
    /// Every message was taken and the sending side has left.
    #[error("closed: the sender has left and every message was taken")]
    Closed,
    /// Every message was taken and every sender died without leaving.
    #[error("peer died: the sending process ended without detaching; a successor may attach")]
    PeerDied,
    /// The receiver was too slow for a sender that does not wait: messages were overwritten before it
    /// read them. It goes on where it was told to; the next call receives (broadcast rings).
    #[error(
        "missed {count} messages: the sender was faster; use a larger capacity, or a lossless ring"
    )]
    Missed {
        /// How many, exactly.
        count: u64,
    },
    /// The message does not fit the buffer; it was not taken.
    #[error("message of {len} bytes does not fit the buffer of {room}; it was not taken")]
    BufferTooSmall {
        /// The length of the message, in bytes.
        len: usize,
        /// The length of the buffer, in bytes.
        room: usize,
    },
    /// The mapping holds a value that no honest peer writes.
    #[error("corrupt: {what} at offset {offset}")]
    Corrupt {
        /// What is wrong.
        what: &'static str,
        /// Where in the mapping, in bytes.
        offset: u64,
    },
    /// The handle was used in a forked child, where it is not valid.
    #[error("this handle belongs to the process that attached it; attach again in the child")]
    Forked,
    /// A system call failed.
    #[error("{op}: {source}")]
    Os {
        /// The system call.
        op: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
}

debug_is_display!(RecvError);
