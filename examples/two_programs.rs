//! Two programs that know nothing of each other but a name.
//!
//! Run them in two terminals, in any order:
//!
//! ```text
//! cargo run --example two_programs -- recv orders
//! printf 'buy 100\nsell 30\n' | cargo run --example two_programs -- send orders
//! ```
//!
//! Kill either at any moment and start it again: the ring stays for it. A message that the killed
//! receiver had taken and not let go of comes again, and says so.

use std::io::{BufRead, Write};
use std::time::Duration;

use ringway::RecvError;
use ringway::spsc::{self, Config};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    match (args.next().as_deref(), args.next()) {
        (Some("send"), Some(name)) => send(&name),
        (Some("recv"), Some(name)) => recv(&name),
        _ => Err("usage: two_programs send|recv NAME".into()),
    }
}

/// Sends the lines of standard input.
fn send(name: &str) -> Result<()> {
    // Whoever comes first creates the ring; its settings are recorded in it for the other.
    let mut orders = spsc::create_or_attach(name, Config::default())?.producer()?;
    for line in std::io::stdin().lock().lines() {
        orders.send(line?.as_bytes())?; // waits while the ring is full
    }
    Ok(()) // Dropping the producer closes the ring.
}

/// Prints what arrives, until the sender closes.
fn recv(name: &str) -> Result<()> {
    let mut orders = spsc::create_or_attach(name, Config::default())?.consumer()?;
    let mut out = std::io::stdout().lock();
    let mut line = Vec::new();
    let mut bereft = false;
    loop {
        match orders.recv() {
            Ok(message) => {
                bereft = false;
                // Copied out of the ring before it is looked at: the other program may be anybody's.
                line.clear();
                line.extend_from_slice(&message);
                let again = if message.redelivered() {
                    " (again)"
                } else {
                    ""
                };
                writeln!(out, "{}{again}", String::from_utf8_lossy(&line))?;
                drop(message); // Done with only now: had we been killed before, it would come again.
            }
            Err(RecvError::Closed) => return Ok(()),
            // It was killed. A new one may take its place, now or later: look again now and then.
            Err(RecvError::PeerDied) => {
                if !std::mem::replace(&mut bereft, true) {
                    eprintln!("the sender died; waiting for another");
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(error.into()),
        }
    }
}
