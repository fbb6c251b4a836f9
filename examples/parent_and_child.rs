//! A parent and the child it starts, joined by a ring that has no name.
//!
//! Run it with `cargo run --example parent_and_child`. The memory is an anonymous file that the child
//! inherits as a descriptor, so there is nothing to clean up, whoever is killed.

use std::os::fd::AsFd;
use std::process::Command;

use ringway::RecvError;
use ringway::spsc::{Config, Ring};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("child") => child(),
        _ => parent(),
    }
}

fn parent() -> Result<()> {
    let ring = Ring::anonymous(Config::default())?;
    let mut numbers = ring.producer()?;

    // Our descriptor of the ring is closed in programs that we execute; this copy of it is the
    // child's standard input, the one descriptor that every way of starting a program hands on.
    let copy = ring.as_fd().try_clone_to_owned()?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("child")
        .stdin(copy)
        .spawn()?;

    for number in 1..=100_000u64 {
        numbers.send(&number.to_le_bytes())?;
    }
    numbers.close(); // The child takes what is there, and is then told Closed.

    let status = child.wait()?;
    if !status.success() {
        return Err(format!("the child ended with {status}").into());
    }
    Ok(())
}

fn child() -> Result<()> {
    let ring = Ring::from_fd(std::io::stdin().as_fd().try_clone_to_owned()?)?;
    let mut numbers = ring.consumer()?;
    let mut sum = 0u64;
    loop {
        match numbers.recv() {
            Ok(message) => sum += u64::from_le_bytes((&message[..]).try_into()?),
            Err(RecvError::Closed) => break,
            Err(error) => return Err(error.into()), // PeerDied, if the parent was killed
        }
    }
    println!("the numbers add up to {sum}");
    Ok(())
}
