//! A camera that must not wait, and a viewer that looks at the frames where they are: no copy at all.
//!
//! ```text
//! cargo run --example camera_frames                    # both, as two processes
//! cargo run --example camera_frames -- camera front    # or each in its own terminal
//! cargo run --example camera_frames -- viewer front
//! ```
//!
//! The camera writes each frame into the ring itself. When the viewer is behind it drops the frame
//! rather than wait, and goes on counting, so that the viewer knows how many it has missed.

use std::process::Command;
use std::time::Duration;

use ringway::spsc::{self, Config};
use ringway::{RecvError, SendError};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const WIDTH: usize = 640;
const HEIGHT: usize = 480;
/// The number of the frame, then one byte a pixel.
const HEADER: usize = 8;
const FRAME: usize = HEADER + WIDTH * HEIGHT;
const FRAMES: u64 = 200;

/// Room for a few frames: a message takes at most a little under half of a ring.
fn config() -> Config {
    Config::default().capacity((8 * FRAME).next_power_of_two() as u64)
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["camera", name] => camera(name),
        ["viewer", name] => viewer(name),
        [] => {
            let name = format!("camera-{}", std::process::id());
            let mut camera = Command::new(std::env::current_exe()?)
                .args(["camera", &name])
                .spawn()?;
            viewer(&name)?;
            camera.wait()?;
            Ok(())
        }
        _ => Err("usage: camera_frames [camera NAME | viewer NAME]".into()),
    }
}

fn camera(name: &str) -> Result<()> {
    let mut ring = spsc::create_or_attach(name, config())?.producer()?;
    for number in 0..FRAMES {
        match ring.try_reserve(FRAME) {
            Ok(mut frame) => {
                let (header, pixels) = frame.split_at_mut(HEADER);
                header.copy_from_slice(&number.to_le_bytes());
                pixels.fill(number as u8); // what the sensor's driver would do
                frame.commit();
            }
            Err(SendError::Full) => {} // the viewer is behind: this one is dropped
            Err(error) => return Err(error.into()),
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(())
}

fn viewer(name: &str) -> Result<()> {
    let mut ring = spsc::create_or_attach(name, config())?.consumer()?;
    let (mut seen, mut torn, mut next) = (0, 0, 0);
    loop {
        let frame = match ring.recv() {
            Ok(frame) => frame, // borrowed from the ring; given back when it is dropped
            Err(RecvError::Closed) => break,
            Err(error) => return Err(error.into()),
        };
        let (header, pixels) = frame.split_at(HEADER);
        let number = u64::from_le_bytes(header.try_into()?);
        torn += u64::from(pixels.iter().any(|pixel| *pixel != number as u8));
        seen += 1;
        next = number + 1;
    }
    let dropped = next - seen;
    println!("saw {seen} frames of {WIDTH}x{HEIGHT}, {torn} torn; the camera dropped {dropped}");
    Ok(())
}
