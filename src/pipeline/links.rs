//! What joins two neighbours that both speak messages: a ring, handed to both by inheritance, or a
//! channel of the mechanism that the user chose, which both open.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use crate::channel::{self, Capabilities};
use crate::endpoint::{Endpoint, Mechanism};
use crate::mapping::{self, Place};
use crate::os::process;
use crate::stage::Joint;
use crate::{Error, mpmc, spsc};

/// Slots of a ring between several processes a side.
const SLOTS: u64 = 1024;
/// Bytes of a ring between two processes, and how many of the longest messages it has room for
/// even if that takes more.
const CAPACITY: u64 = 1 << 20;
const LONGEST: u64 = 8;

/// The side of a link that a stage is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The stage before it, which sends.
    Sending,
    /// The stage behind it, which receives.
    Receiving,
}

/// What carries messages from one stage to the next.
pub(super) enum Link {
    /// One process on each side.
    Pair(spsc::Ring),
    /// Several on one side at least. The handles are the supervisor's own: while it has them,
    /// neither side finds that the other has gone; not before it has come, and not between the
    /// death of a process and its successor.
    Several {
        ring: mpmc::Ring,
        sending: Option<Box<mpmc::Producer>>,
        receiving: Option<Box<mpmc::Consumer>>,
    },
    /// A channel of another mechanism.
    Channel(Box<Channel>),
}

/// A channel that the stages open themselves, and what the supervisor says of each of them.
pub(super) struct Channel {
    /// By what the two sides open it: the same, unless it is a pipe.
    endpoints: [Endpoint; 2],
    /// The ends of a pipe, until both stages have inherited theirs.
    pipe: Option<[OwnedFd; 2]>,
    /// That the stages before, and those behind, have ended for good; see `stage/channel.rs`.
    ended: [Verdict; 2],
    /// Whether there are several processes before it, and behind it.
    several: [bool; 2],
}

/// A pipe in which nothing is written, and whose end of file is the message.
struct Verdict {
    told: OwnedFd,
    held: Option<OwnedFd>,
}

impl Verdict {
    fn new() -> Result<Verdict, Error> {
        let (told, held) =
            process::pipe(4096).map_err(|error| Error::os("pipe2", "pipe", error))?;
        let held = Some(held);
        Ok(Verdict { told, held })
    }
}

impl Channel {
    fn new(endpoint: &Endpoint, several: (bool, bool)) -> Result<Channel, Error> {
        let mut channel = Channel {
            endpoints: [endpoint.clone(), endpoint.clone()],
            pipe: None,
            ended: [Verdict::new()?, Verdict::new()?],
            several: [several.0, several.1],
        };
        if endpoint.mechanism() == Mechanism::Pipe {
            let (read, write) =
                process::pipe(4096).map_err(|error| Error::os("pipe2", "pipe", error))?;
            let ends = [write, read];
            for (endpoint, end) in channel.endpoints.iter_mut().zip(&ends) {
                *endpoint = endpoint.clone().with("fd", end.as_raw_fd() as u64)?;
            }
            channel.pipe = Some(ends);
            check(&crate::channel::pipe::capabilities("pipe", ""), several)?;
        } else {
            // What a crash may have left in it is none of this pipeline's; nor is what others use.
            if !channel.clear()? {
                return Err(Error::AlreadyExists {
                    what: "channel",
                    name: endpoint.to_string(),
                });
            }
            // Opened once, to see that it can be had, and to learn what it can do.
            let capabilities = channel.endpoints[1].receiver()?.capabilities();
            check(&capabilities, several)?;
        }
        Ok(channel)
    }

    /// Takes away the channel that has the name, with all that waits in it, if nobody attends it. False when
    /// somebody does.
    fn clear(&self) -> Result<bool, Error> {
        let endpoint = &self.endpoints[1];
        match endpoint.mechanism() {
            Mechanism::Mq => channel::mqueue::remove_if_abandoned(endpoint.name()),
            Mechanism::Sem => channel::semaphore::remove_abandoned(endpoint.name()),
            Mechanism::Broadcast => {
                if let Place::Path(path) = Place::of(endpoint.name())? {
                    mapping::remove_if_abandoned(endpoint.name(), &path, || false)?;
                }
                Ok(true) // subscribers may be waiting for what the pipeline will say
            }
            // In the others nothing waits while nobody has them open, and the last one to leave takes the
            // name away.
            _ => match endpoint.receiver() {
                Err(Error::RoleTaken { .. }) => Ok(false),
                opened => opened.map(|_| true),
            },
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // Its stages have removed the name, unless they were killed.
        if self.endpoints[0].mechanism() != Mechanism::Pipe {
            let _ = self.clear();
        }
    }
}

/// Refuses a mechanism that has not the room for so many.
fn check(can: &Capabilities, several: (bool, bool)) -> Result<(), Error> {
    let what = match several {
        (true, _) if !can.many_senders => "take messages from several processes",
        (_, true) if !can.many_receivers => "hand out messages to several processes",
        // Each worker would do the work of all.
        (_, true) if can.mechanism == "bcast" => "give each message to one process only",
        _ => return Ok(()),
    };
    Err(Error::Unsupported {
        mechanism: can.mechanism,
        what,
        remedy: "leave -j out, or use mpmc:, mq: or sem:",
    })
}

impl Side {
    fn index(self) -> usize {
        match self {
            Side::Sending => 0,
            Side::Receiving => 1,
        }
    }
}

impl Link {
    /// A ring for messages of up to `longest` bytes.
    pub(super) fn new(several: bool, longest: usize) -> Result<Link, Error> {
        if several {
            let config = mpmc::Config::default().slots(SLOTS);
            let ring = mpmc::Ring::anonymous(config.slot_size(longest as u64))?;
            return Link::several(ring);
        }
        let config = spsc::Config::default().capacity(capacity(longest));
        spsc::Ring::anonymous(config).map(Link::Pair)
    }

    fn several(ring: mpmc::Ring) -> Result<Link, Error> {
        let (sending, receiving) = (ring.producer()?, ring.consumer()?);
        Ok(Link::Several {
            ring,
            sending: Some(Box::new(sending)),
            receiving: Some(Box::new(receiving)),
        })
    }

    /// A link of the mechanism and the name of `endpoint`, with several processes before and behind it.
    ///
    /// # Errors
    /// What keeps it from being made; `Unsupported` where the mechanism has no room for so many.
    pub(super) fn via(
        endpoint: &Endpoint,
        several: (bool, bool),
        longest: usize,
    ) -> Result<Link, Error> {
        match endpoint.mechanism() {
            Mechanism::Ring => {
                if several != (false, false) {
                    return Err(Error::Unsupported {
                        mechanism: "ring",
                        what: "join several processes",
                        remedy: "leave -j out, or use mpmc:, mq: or sem:",
                    });
                }
                let mut config = endpoint.spsc()?;
                if endpoint.option("capacity").is_none() {
                    config = config.capacity(capacity(longest));
                }
                spsc::create(endpoint.name(), config).map(Link::Pair)
            }
            Mechanism::Mpmc => {
                let mut config = endpoint.mpmc()?;
                if endpoint.option("slots").is_none() {
                    config = config.slots(SLOTS);
                }
                if endpoint.option("slot").is_none() {
                    config = config.slot_size(longest as u64);
                }
                Link::several(mpmc::create(endpoint.name(), config)?)
            }
            _ => Channel::new(endpoint, several).map(|channel| Link::Channel(Box::new(channel))),
        }
    }

    /// The descriptors that a stage on that side inherits.
    pub(super) fn descriptors(&self, side: Side) -> Vec<RawFd> {
        match self {
            Link::Pair(ring) => vec![ring.as_fd().as_raw_fd()],
            Link::Several { ring, .. } => vec![ring.as_fd().as_raw_fd()],
            Link::Channel(channel) => {
                let pipe = channel.pipe.iter().map(|ends| &ends[side.index()]);
                // The end of the *other* side is what it is to be told of.
                let verdict = &channel.ended[1 - side.index()].told;
                pipe.chain([verdict]).map(AsRawFd::as_raw_fd).collect()
            }
        }
    }

    /// How a stage on that side is told of it.
    pub(super) fn joint(&self, side: Side) -> Joint {
        match self {
            Link::Pair(ring) => Joint::Spsc(ring.as_fd().as_raw_fd()),
            Link::Several { ring, .. } => Joint::Mpmc(ring.as_fd().as_raw_fd()),
            Link::Channel(channel) => Joint::Channel {
                endpoint: channel.endpoints[side.index()].clone(),
                verdict: channel.ended[1 - side.index()].told.as_raw_fd(),
                several: channel.several[1 - side.index()],
            },
        }
    }

    /// Whether a process on that side that has died can have a successor, which loses nothing.
    pub(super) fn survives(&self, side: Side) -> bool {
        match (self, side) {
            (Link::Pair(_) | Link::Several { .. }, _) => true,
            // What a dead receiver had read is gone. A pipe's ends are not kept here, so that end of
            // file is seen.
            (Link::Channel(_), Side::Receiving) => false,
            (Link::Channel(channel), Side::Sending) => {
                channel.endpoints[0].mechanism() != Mechanism::Pipe
            }
        }
    }

    /// Every process that is to inherit an end has done so.
    pub(super) fn let_go(&mut self) {
        if let Link::Channel(channel) = self {
            channel.pipe = None;
        }
    }

    /// The stage before has ended for good: the one behind gets what is there, and then the end.
    pub(super) fn end_sending(&mut self) {
        match self {
            // As the successor of one that died, or in place of one that never came; one that
            // has closed the ring itself leaves nothing to do. What is refused because a child of
            // the stage still has the role is that child's to end.
            Link::Pair(ring) => drop(ring.producer()),
            Link::Several { sending, .. } => {
                if let Some(mut producer) = sending.take() {
                    // The only error is that of a forked child's, which this is not.
                    let _ = producer.close();
                }
            }
            Link::Channel(channel) => channel.ended[0].held = None,
        }
    }

    /// The stage behind has ended for good: the one before cannot send any more.
    pub(super) fn end_receiving(&mut self) {
        match self {
            Link::Pair(ring) => drop(ring.consumer()),
            Link::Several { receiving, .. } => {
                if let Some(mut consumer) = receiving.take() {
                    let _ = consumer.close();
                }
            }
            Link::Channel(channel) => channel.ended[1].held = None,
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // A ring with a name is the pipeline's own. What stages that were killed have left in it is
        // nobody's.
        let _ = match self {
            Link::Pair(ring) => ring.unlink(),
            Link::Several { ring, .. } => ring.unlink(),
            Link::Channel(_) => Ok(()),
        };
    }
}

/// Bytes of a ring between two processes, for messages of up to `longest` bytes.
fn capacity(longest: usize) -> u64 {
    let messages = (longest as u64).saturating_mul(LONGEST);
    CAPACITY.max(messages.next_power_of_two())
}
