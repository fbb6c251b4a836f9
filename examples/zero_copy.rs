//! Large messages that are never copied: written where the reader reads them.
//!
//! Run it with `cargo run --release --example zero_copy`. One process renders frames straight into
//! the ring, another looks at them there.

use std::os::fd::AsFd;
use std::process::Command;

use ringway::RecvError;
use ringway::spsc::{Config, Ring};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const WIDTH: usize = 640;
const HEIGHT: usize = 480;
const FRAMES: usize = 100;

fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some("look") {
        return look();
    }
    // A message may take a little under half of the ring. Four frames fit here.
    let ring = Ring::anonymous(Config::default().capacity(2 << 20))?;
    let mut frames = ring.producer()?;
    let copy = ring.as_fd().try_clone_to_owned()?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("look")
        .stdin(copy)
        .spawn()?;

    for number in 0..FRAMES {
        let mut frame = frames.reserve(WIDTH * HEIGHT)?; // room in the shared memory itself
        render(number, &mut frame);
        frame.commit(); // from here on the other process sees it
    }

    // A reservation is a promise of room, not of a message. Dropped, it was never there; and fewer
    // bytes can be sent than were reserved.
    let _ = frames.reserve(1000)?;
    let mut farewell = frames.reserve(1000)?;
    farewell[..3].copy_from_slice(b"end");
    farewell.commit_len(3);
    frames.close();

    let status = child.wait()?;
    if !status.success() {
        return Err(format!("the child ended with {status}").into());
    }
    Ok(())
}

/// Every pixel of a frame has its number's colour.
fn render(number: usize, frame: &mut [u8]) {
    frame.fill(number as u8);
}

fn look() -> Result<()> {
    let ring = Ring::from_fd(std::io::stdin().as_fd().try_clone_to_owned()?)?;
    let mut frames = ring.consumer()?;
    let mut seen = 0;
    loop {
        match frames.recv() {
            // A borrowed message: these bytes lie in the ring. Dropping it gives the room back.
            Ok(frame) if frame.len() == WIDTH * HEIGHT => {
                if frame.iter().any(|pixel| *pixel != seen as u8) {
                    return Err(format!("frame {seen} is torn").into());
                }
                seen += 1;
            }
            Ok(farewell) => println!(
                "{seen} frames, then {:?}",
                String::from_utf8_lossy(&farewell)
            ),
            Err(RecvError::Closed) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
