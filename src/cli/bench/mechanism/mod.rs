//! The mechanisms, each in the form in which it is fastest: how the parent prepares one, and how a
//! worker takes up its end.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::control::{Control, Role};
use super::engine::{self, Findings};
use super::link::Outcome;
use super::plan::{Case, Mechanism, Wait};
use super::worker::Job;
use crate::os::bare;

mod guarded;
mod limit;
mod packet;
mod queue;
mod ring;
mod signal;
mod stream;

pub(crate) use queue::remove_all;

/// What the parent makes for one repetition, and both workers inherit. Nothing of it has a name by
/// the time the workers start; what the kernel would keep all the same goes when this is dropped.
#[derive(Default)]
pub(crate) struct Prepared {
    /// Descriptors, in an order that each mechanism defines for itself.
    pub(crate) fds: Vec<OwnedFd>,
    /// The System V queues there and back.
    pub(crate) queues: Vec<queue::SystemVOwner>,
}

impl Prepared {
    fn of(fds: impl IntoIterator<Item = OwnedFd>) -> Prepared {
        Prepared {
            fds: fds.into_iter().collect(),
            ..Prepared::default()
        }
    }

    /// The numbers that a worker needs.
    pub(crate) fn queue_ids(&self) -> Vec<bare::SystemVQueue> {
        self.queues.iter().map(|queue| queue.id()).collect()
    }
}

/// Makes what `case` needs.
pub(crate) fn prepare(case: &Case) -> Outcome<Prepared> {
    Ok(match case.mechanism {
        Mechanism::Raw1
        | Mechanism::Raw2
        | Mechanism::BareFutex
        | Mechanism::Memcpy
        | Mechanism::Signal => Prepared::default(),
        Mechanism::Spsc => Prepared::of(ring::spsc_rings(
            case.size,
            case.wait.unwrap_or(Wait::Adaptive),
        )?),
        Mechanism::Mpmc => Prepared::of(ring::mpmc_rings(
            case.size,
            case.wait.unwrap_or(Wait::Adaptive),
        )?),
        Mechanism::Broadcast => Prepared::of(ring::broadcast_rings(
            case.size,
            case.wait.unwrap_or(Wait::Adaptive),
        )?),
        Mechanism::Semaphore => Prepared::of(guarded::semaphores(case.size)?),
        Mechanism::Eventfd => Prepared::of(guarded::eventfds(case.size)?),
        Mechanism::Pipe => Prepared::of(stream::pipes()?),
        Mechanism::Fifo => Prepared::of(stream::fifos()?),
        Mechanism::UnixStream => Prepared::of(stream::unix()?),
        Mechanism::Tcp => Prepared::of(stream::tcp()?),
        Mechanism::UnixSeqpacket => Prepared::of(packet::seqpacket(case.size)?),
        Mechanism::UnixDatagram => Prepared::of(packet::datagram(case.size)?),
        Mechanism::Mqueue => Prepared::of(queue::posix(case.size)?),
        Mechanism::Sysv => Prepared {
            queues: queue::system_v()?,
            ..Prepared::default()
        },
    })
}

/// Takes up this worker's end and measures.
pub(crate) fn run(job: &Job, control: &Control) -> Outcome<Findings> {
    let mut ends = Ends::new(&job.fds);
    match job.case.mechanism {
        Mechanism::Raw1 | Mechanism::Raw2 => Err("the raw limits are probed, not run".into()),
        Mechanism::BareFutex => engine::run(job, control, limit::BareFutex::new(job.role, control)),
        Mechanism::Memcpy => limit::copy(job, control),
        Mechanism::Spsc => engine::run(job, control, ring::SpscLink::new(job.role, &mut ends)?),
        Mechanism::Mpmc => engine::run(job, control, ring::MpmcLink::new(job.role, &mut ends)?),
        Mechanism::Broadcast => {
            engine::run(job, control, ring::BroadcastLink::new(job.role, &mut ends)?)
        }
        Mechanism::Semaphore => {
            engine::run(job, control, guarded::SemaphoreLink::new(job, &mut ends)?)
        }
        Mechanism::Eventfd => engine::run(job, control, guarded::EventLink::new(job, &mut ends)?),
        Mechanism::Pipe | Mechanism::Fifo => engine::run(
            job,
            control,
            stream::Stream::one_way_pair(job.role, &mut ends),
        ),
        Mechanism::UnixStream | Mechanism::Tcp => {
            engine::run(job, control, stream::Stream::two_way(job.role, &mut ends)?)
        }
        Mechanism::UnixSeqpacket | Mechanism::UnixDatagram => {
            engine::run(job, control, packet::Packet::new(job.role, &mut ends))
        }
        Mechanism::Mqueue => engine::run(job, control, queue::PosixLink::new(job.role, &mut ends)),
        Mechanism::Sysv => engine::run(job, control, queue::SystemVLink::new(job)?),
        Mechanism::Signal => engine::run(job, control, signal::SignalLink::new(control)?),
    }
}

/// The inherited descriptors, each to be taken once.
pub(crate) struct Ends(Vec<Option<OwnedFd>>);

impl Ends {
    fn new(fds: &[RawFd]) -> Ends {
        Ends(
            fds.iter()
                // SAFETY: the parent opened these for this worker and gave nobody else their
                // numbers; a worker makes one `Ends`.
                .map(|&fd| Some(unsafe { OwnedFd::from_raw_fd(fd) }))
                .collect(),
        )
    }

    /// Descriptor `index` in the mechanism's order.
    ///
    /// # Panics
    /// When a mechanism takes what it did not prepare.
    fn take(&mut self, index: usize) -> OwnedFd {
        self.0[index].take().expect("each descriptor is taken once")
    }
}

/// Of two one-way connections, there and back, which is this role's for sending and which for
/// receiving.
fn directions(role: Role) -> (usize, usize) {
    match role {
        Role::Leader => (0, 1),
        Role::Follower => (1, 0),
    }
}

/// Has every child inherit the prepared descriptors, and gives their numbers.
pub(crate) fn hand_down(prepared: &Prepared) -> Outcome<Vec<RawFd>> {
    use std::os::fd::AsFd;
    prepared
        .fds
        .iter()
        .map(|fd| {
            bare::inherit(fd.as_fd())?;
            Ok(fd.as_raw_fd())
        })
        .collect()
}
