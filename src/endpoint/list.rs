//! Fallback: a list of endpoints, of which the first that can be used is taken.

use std::fmt;

use super::{Endpoint, Mechanism};
use crate::Error;
use crate::channel::{self, Receiver, Sender};

/// A channel, and how it was come by.
pub struct Opened<T> {
    /// The channel.
    pub channel: T,
    /// The endpoint that was taken.
    pub taken: Endpoint,
    /// Those before it in the list, and why each was refused.
    pub refused: Vec<Refusal>,
}

/// An endpoint that could not be used.
#[derive(Debug)]
pub struct Refusal {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Why.
    pub error: Error,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: refused: {}", self.endpoint, self.error)
    }
}

impl<T> fmt::Display for Opened<T> {
    /// One line for each that was refused, and one for the one taken.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for refusal in &self.refused {
            writeln!(f, "{refusal}")?;
        }
        write!(f, "{}: taken", self.taken)
    }
}

impl<T> fmt::Debug for Opened<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("taken", &self.taken)
            .field("refused", &self.refused)
            .finish_non_exhaustive()
    }
}

/// None of the endpoints could be used, or one refused in a way that must not be gone round.
#[derive(Debug)]
pub struct OpenError {
    /// Those that were tried, in order.
    pub refused: Vec<Refusal>,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.refused.is_empty() {
            return f.write_str("no endpoint was given");
        }
        for (index, refusal) in self.refused.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{refusal}")?;
        }
        Ok(())
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.refused.last().map(|refusal| &refusal.error as _)
    }
}

/// Opens the sending end of the first endpoint that can be used.
///
/// Two refusals are final, and are not gone round by the next in the list: that of a channel that
/// is there and is somebody else's (permission), and that of a process that has too few descriptors
/// left.
///
/// Both ends find the same one if they are refused the same ones; where they may not be, use
/// `auto:NAME`.
///
/// ```
/// use ringway::endpoint::open_sender;
///
/// let name = format!("doc-list-{}", std::process::id());
/// let opened = open_sender(&[
///     "fifo:/nowhere/at/all".parse()?,
///     format!("mq:{name}").parse()?,
/// ])?;
/// assert_eq!(opened.taken.name(), name);
/// assert!(opened.to_string().starts_with("fifo:/nowhere/at/all: refused: "));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When none can be used: with the reason of each.
pub fn open_sender(endpoints: &[Endpoint]) -> Result<Opened<Box<dyn Sender>>, OpenError> {
    first(endpoints, Endpoint::sender)
}

/// Opens the receiving end of the first endpoint that can be used; see [`open_sender`].
///
/// # Errors
/// When none can be used: with the reason of each.
pub fn open_receiver(endpoints: &[Endpoint]) -> Result<Opened<Box<dyn Receiver>>, OpenError> {
    first(endpoints, Endpoint::receiver)
}

/// What `open` makes of the first endpoint that it does not refuse.
pub(crate) fn first<T>(
    endpoints: &[Endpoint],
    open: impl Fn(&Endpoint) -> Result<T, Error>,
) -> Result<Opened<T>, OpenError> {
    let mut refused = Vec::new();
    for endpoint in endpoints {
        match open_one(endpoint, &open) {
            Ok(channel) => {
                return Ok(Opened {
                    channel,
                    taken: endpoint.clone(),
                    refused,
                });
            }
            Err((error, last)) => {
                refused.push(Refusal {
                    endpoint: endpoint.clone(),
                    error,
                });
                if last {
                    break;
                }
            }
        }
    }
    Err(OpenError { refused })
}

/// Opens one; an error comes with whether it is final.
pub(super) fn open_one<T>(
    endpoint: &Endpoint,
    open: impl Fn(&Endpoint) -> Result<T, Error>,
) -> Result<T, (Error, bool)> {
    let needed = endpoint.mechanism().descriptors();
    // Whether there are enough is seen before anything is made that would have to be taken back.
    let spare: Result<Vec<_>, _> = (0..needed).map(|_| std::fs::File::open("/")).collect();
    if let Err(error) = spare.map(drop)
        && matches!(
            error.raw_os_error(),
            Some(crate::os::EMFILE | crate::os::ENFILE)
        )
    {
        let error = Error::NoRoom {
            name: endpoint.to_string(),
            needed: match needed {
                1 => "1 file descriptor".into(),
                many => format!("{many} file descriptors"),
            },
            why: error.to_string(),
            remedy: "close some, or raise the limit with `ulimit -n`".into(),
        };
        return Err((error, true));
    }
    open(endpoint).map_err(|error| {
        let last = match &error {
            Error::PermissionDenied { .. } => endpoint.exists(),
            Error::NotOurs { .. } | Error::RoleTaken { .. } => true,
            _ => false,
        };
        (error, last)
    })
}

impl Endpoint {
    /// Whether there is something of that name, whoever may use it. (It is then that which refused
    /// somebody, and not the place where it would have been made.)
    fn exists(&self) -> bool {
        use Mechanism::{Auto, Broadcast, Fifo, Mpmc, Mq, Pipe, Ring, Sem, Signal, Unix};
        match self.mechanism {
            Fifo | Unix => std::fs::symlink_metadata(&self.name).is_ok(),
            Sem => crate::channel::semaphore::exists(&self.name),
            Ring | Mpmc | Broadcast => crate::mapping::exists(&self.name),
            // The system refuses by permission only what is there.
            Pipe | Mq | Signal | Auto => true,
        }
    }
}

/// Makes both ends of a channel without a name, for relatives, by the first mechanism that can be
/// had: [`Mechanism::Ring`], [`Mechanism::Sem`],
/// [`Mechanism::Unix`] or [`Mechanism::Pipe`].
///
/// ```
/// use ringway::endpoint::{Mechanism, open_pair};
///
/// let opened = open_pair(&[Mechanism::Sem, Mechanism::Pipe])?;
/// let (mut tx, mut rx) = opened.channel;
/// tx.send(b"hello")?;
/// let mut message = Vec::new();
/// rx.recv(&mut message)?;
/// assert_eq!(message, b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When none can be had: with the reason of each.
pub fn open_pair(mechanisms: &[Mechanism]) -> Result<Opened<Pair>, OpenError> {
    let endpoints: Vec<Endpoint> = mechanisms.iter().copied().map(Endpoint::nameless).collect();
    first(&endpoints, |endpoint| match endpoint.mechanism() {
        Mechanism::Ring => {
            let (tx, rx) = channel::ring::pair(crate::spsc::Config::default())?;
            Ok((Box::new(tx) as _, Box::new(rx) as _))
        }
        Mechanism::Sem => {
            let (tx, rx) = channel::semaphore::pair(channel::semaphore::Config::default())?;
            Ok((Box::new(tx) as _, Box::new(rx) as _))
        }
        Mechanism::Unix => {
            let (tx, rx) = channel::socket::pair()?;
            Ok((Box::new(tx) as _, Box::new(rx) as _))
        }
        Mechanism::Pipe => {
            let (tx, rx) = channel::pipe::pair()?;
            Ok((Box::new(tx) as _, Box::new(rx) as _))
        }
        other => Err(Error::Unsupported {
            mechanism: other.name(),
            what: "be made without a name",
            remedy: "use ring, sem, unix or pipe, or give it a name as an endpoint",
        }),
    })
}

/// The two ends of a channel.
pub type Pair = (Box<dyn Sender>, Box<dyn Receiver>);
