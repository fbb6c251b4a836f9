//! Ringway: processes on one Linux machine hand each other messages, as fast as a cache line moves
//! between two processors, and keep going when one of them is killed.
#![doc(html_no_source)]
#![warn(rust_2018_idioms)]
#![allow(dead_code, unused_imports, unreachable_code, unused_variables)] // while the crate is being built up; removed before the first release

#[cfg(not(target_os = "linux"))]
compile_error!("Ringway needs Linux: futexes, memfd and open-file-description locks");
#[cfg(not(target_pointer_width = "64"))]
compile_error!("Ringway needs a 64-bit target: its cursors are 64-bit atomics");

pub(crate) mod primitive;

mod error;
mod layout;
mod mapping;
pub(crate) mod os;
mod participant;
pub(crate) mod ring;
mod sleeper;
pub mod wait;

pub mod channel;
pub mod control;
pub mod endpoint;
pub mod mpmc;
pub mod spsc;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;

pub mod pipeline;
pub mod stage;

pub use endpoint::Endpoint;
pub use error::{Error, RecvError, SendError};
