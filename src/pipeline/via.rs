//! The mechanism between stages when the user chooses it: [`Pipeline::via`](super::Pipeline::via).
//!
//! | mechanism | between two stages that speak messages | where a plain program is one of the two |
//! | --- | --- | --- |
//! | ring | a ring with a name, inherited by descriptor | two adapters, one on each side |
//! | mpmc | the same; several processes on either side | two adapters |
//! | pipe | a framed pipe, inherited; several may send | the pipe itself |
//! | fifo | by path; several may send | the FIFO, opened and then unlinked |
//! | unix | by path; several may send | two adapters (programs do not expect a socket's `ECONNRESET`) |
//! | mq, sem | by name; several on either side | two adapters |
//! | signal | by name; several may send | two adapters |
//! | auto | the first of the above that can be had | likewise |
//!
//! An adapter is a process of its own (`ringway adapter`), with plain bytes on one side and messages on the
//! other. The link behind stage 2 of `mq:jobs` is `mq:jobs.2`.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::links::Link;
use crate::endpoint::{Endpoint, Mechanism, OpenError, Opened, first};
use crate::os::{self, process};
use crate::{Error, endpoint};

/// What joins a stage to the one behind it.
pub(super) enum Join {
    /// Messages.
    Link(Link),
    /// Messages between two adapters.
    Adapted(Link),
    /// Bytes: the end to read and the end to write.
    Bytes(OwnedFd, OwnedFd),
}

/// What there is to be joined.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// The number of the stage before it.
    pub(super) link: usize,
    /// Both stages speak messages.
    pub(super) messages: bool,
    /// Whether there are several processes before it, and behind it.
    pub(super) several: (bool, bool),
    /// The longest message.
    pub(super) longest: usize,
    /// Whether there are adapters.
    pub(super) adapters: bool,
}

/// An endpoint as one writes it for a pipeline: a mechanism alone (`mq`, `fifo:?mode=0640`) gets a name
/// after this process.
#[cfg(feature = "cli")]
pub(crate) fn parse(text: &str) -> Result<Endpoint, Error> {
    let (head, options) = match text.split_once('?') {
        Some((head, options)) => (head, format!("?{options}")),
        None => (text, String::new()),
    };
    let name = head.strip_suffix(':').unwrap_or(head);
    let known = Mechanism::ALL.iter().find(|known| known.name() == name);
    match known {
        Some(mechanism) if mechanism.is_named() => {
            let named = Endpoint::new(*mechanism, name_for(*mechanism, &unnamed()))?;
            format!("{named}{options}").parse()
        }
        Some(_) => format!("{name}:{options}").parse(),
        None => text.parse(),
    }
}

/// The best of all mechanisms, under a name of this process's.
pub(super) fn anything() -> Result<Endpoint, Error> {
    Endpoint::new(Mechanism::Auto, unnamed())
}

fn unnamed() -> String {
    format!("run-{}", std::process::id())
}

/// A name or a path for that mechanism.
fn name_for(mechanism: Mechanism, base: &str) -> String {
    match mechanism {
        Mechanism::Fifo | Mechanism::Unix => os::directory()
            .join(format!("ringway.{base}"))
            .display()
            .to_string(),
        Mechanism::Pipe => String::new(),
        _ => base.to_owned(),
    }
}

/// The endpoints to try for one link, in order.
fn candidates(list: &[Endpoint], link: usize) -> Vec<Endpoint> {
    let every = [
        Mechanism::Ring,
        Mechanism::Mpmc,
        Mechanism::Sem,
        Mechanism::Unix,
        Mechanism::Pipe,
        Mechanism::Fifo,
        Mechanism::Mq,
    ];
    let numbered = |endpoint: Endpoint| match endpoint.mechanism() {
        Mechanism::Pipe => endpoint,
        _ => endpoint.renamed(format!("{}.{link}", endpoint.name())),
    };
    list.iter()
        .flat_map(|endpoint| match endpoint.mechanism() {
            Mechanism::Auto => every
                .iter()
                .filter_map(|kind| Endpoint::new(*kind, name_for(*kind, endpoint.name())).ok())
                .collect(),
            _ => vec![endpoint.clone()],
        })
        .map(numbered)
        .collect()
}

/// Joins two stages by the first of the endpoints that can be had.
pub(super) fn join(list: &[Endpoint], shape: Shape) -> Result<Opened<Join>, OpenError> {
    first(&candidates(list, shape.link), |endpoint| {
        if endpoint.option("pid").is_some() || endpoint.option("fd").is_some() {
            return Err(Error::Config {
                what: "endpoint",
                value: endpoint.to_string(),
                why: "the stages of a pipeline meet at a channel of their own".into(),
                remedy: "leave pid and fd out".into(),
            });
        }
        if shape.messages {
            return Link::via(endpoint, shape.several, shape.longest).map(Join::Link);
        }
        match endpoint.mechanism() {
            Mechanism::Pipe => process::pipe(super::supervisor::PIPE)
                .map(|(read, write)| Join::Bytes(read, write))
                .map_err(|error| Error::os("pipe2", "pipe", error)),
            Mechanism::Fifo => fifo(endpoint),
            _ if shape.adapters => {
                Link::via(endpoint, (false, false), shape.longest).map(Join::Adapted)
            }
            other => Err(Error::Unsupported {
                mechanism: other.name(),
                what: "carry the bytes of a plain program",
                remedy: "use pipe: or fifo:, or programs that speak messages on both sides",
            }),
        }
    })
}

/// Both ends of a FIFO, blocking as a program expects them. The path is gone again once they are open.
fn fifo(endpoint: &Endpoint) -> Result<Join, Error> {
    let path = PathBuf::from(endpoint.name());
    let failed = |op| move |error| Error::os(op, endpoint.name(), error);
    os::pipe::mkfifo(&path).map_err(failed("mkfifo"))?;
    let opened = os::pipe::open(&path, false, false)
        .and_then(|read| Ok((read, os::pipe::open(&path, true, false)?)))
        .and_then(|(read, write)| {
            os::pipe::set_blocking(&read)?;
            os::pipe::set_blocking(&write)?;
            Ok(Join::Bytes(read, write))
        });
    let removed = std::fs::remove_file(&path);
    let join = opened.map_err(failed("open"))?;
    removed.map_err(failed("unlink"))?;
    Ok(join)
}

/// One error for all that was refused.
pub(super) fn refused(error: OpenError) -> Error {
    let mut refused = error.refused;
    match refused.len() {
        1 => refused.remove(0).error,
        _ => {
            let why: Vec<_> = refused.iter().map(endpoint::Refusal::to_string).collect();
            Error::Config {
                what: "the mechanisms given",
                value: format!("({} of them)", why.len()),
                why: format!("each was refused: {}", why.join("; ")),
                remedy: "give another".into(),
            }
        }
    }
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use super::*;

    #[test]
    fn a_mechanism_alone_gets_a_name() {
        let base = unnamed();
        for (text, expected) in [
            ("mq", format!("mq:{base}")),
            ("mq:", format!("mq:{base}")),
            ("mq:?depth=4", format!("mq:{base}?depth=4")),
            ("mq:jobs?depth=4", "mq:jobs?depth=4".into()),
            ("pipe", "pipe:".into()),
            ("auto", format!("auto:{base}")),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), expected, "{text}");
        }
        assert!(parse("fifo").unwrap().name().ends_with(&base));
        assert!(parse("teleport").is_err());
        assert!(parse("").is_err());
    }
}
