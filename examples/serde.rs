//! Messages of any shape, by serde: strings, lists, enumerations. Ringway needs no serde for it; the
//! program brings its own, and the format that it likes (postcard here).
//!
//! ```text
//! cargo run --example serde
//! ```
//!
//! The sender serialises straight into the ring, and the receiver reads where the bytes lie: on the
//! way there is no copy and no buffer. For plain old data see `ringway::typed`, which needs no format.

use ringway::RecvError;
use ringway::spsc::{Config, Ring};
use serde::{Deserialize, Serialize};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Event<'a> {
    Login { user: &'a str, groups: Vec<&'a str> },
    Measured(Vec<f32>),
    Logout,
}

/// The longest message that is sent, in bytes.
const MOST: usize = 4096;

fn main() -> Result<()> {
    let ring = Ring::anonymous(Config::default())?;
    let mut tx = ring.producer()?;
    let mut rx = ring.consumer()?;

    // A thread here; with a named ring, or one that a child inherits, another process.
    let receiver = std::thread::spawn(move || -> std::result::Result<(), String> {
        loop {
            match rx.recv() {
                // Strings are borrowed from the ring, too, as long as `message` is there.
                Ok(message) => match postcard::from_bytes::<Event>(&message) {
                    Ok(event) => println!("{} bytes: {event:?}", message.len()),
                    Err(error) => return Err(format!("not an event: {error}")),
                },
                Err(RecvError::Closed) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            }
        }
    });

    for event in [
        Event::Login {
            user: "ada",
            groups: vec!["staff", "engines"],
        },
        Event::Measured(vec![0.5, 1.5, 2.5]),
        Event::Logout,
    ] {
        let mut room = tx.reserve(MOST)?;
        let len = postcard::to_slice(&event, &mut room)?.len();
        room.commit_len(len);
    }
    tx.close();
    receiver.join().expect("the receiver does not panic")?;
    Ok(())
}
