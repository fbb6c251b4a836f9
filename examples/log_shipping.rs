//! Lines of a log, shipped to a collector. Both may be killed and started again at any moment: each line
//! that was sent is in the file once.
//!
//! ```text
//! cargo run --example log_shipping                              # a demonstration, with kills
//! cargo run --example log_shipping -- collect app /tmp/app.log  # or each in its own terminal
//! my-program | cargo run --example log_shipping -- ship app
//! ```
//!
//! The ring delivers at least once: what the dead collector had taken and not let go of comes again. A
//! label in front of each line makes that once: when its shipper started, and a number. The collector finds
//! the last one in its file when it starts, and passes over what it has.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringway::spsc::{self, Config};
use ringway::{RecvError, SendError};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["ship", name] => ship(name),
        ["collect", name, file] => collect(name, file),
        [] => demonstrate(),
        _ => Err("usage: log_shipping [ship NAME | collect NAME FILE]".into()),
    }
}

/// Labels the lines of standard input and sends them.
fn ship(name: &str) -> Result<()> {
    // Its lines are told by it from those of the shippers before.
    let start = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let mut ring = spsc::create_or_attach(name, Config::default())?.producer()?;
    for (number, line) in std::io::stdin().lock().lines().enumerate() {
        let line = format!("{start} {number} {}", line?);
        loop {
            match ring.send(line.as_bytes()) {
                Ok(()) => break,
                // The ring is full and the collector is dead: the next one will go on.
                Err(SendError::PeerDied) => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(()) // Dropped, it leaves the ring closed; what is in it stays for the collector.
}

/// Appends lines to the file, each once, until the shipper has left.
fn collect(name: &str, path: &str) -> Result<()> {
    let mut last = last_label(path);
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let mut ring = spsc::create_or_attach(name, Config::default())?.consumer()?;
    loop {
        let message = match ring.recv() {
            Ok(message) => message,
            Err(RecvError::Closed) => return Ok(()),
            // The shipper was killed: the next one will go on.
            Err(RecvError::PeerDied) => {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let line = std::str::from_utf8(&message)?;
        let (start, number) = label(line).ok_or("a line without a label")?;
        if !last.is_some_and(|(same, last)| same == start && number <= last) {
            // In one write: half a line is never in the file, wherever this process is killed.
            file.write_all(format!("{line}\n").as_bytes())?;
            last = Some((start, number));
        }
        // Dropping the message acknowledges it: not before it is in the file.
        drop(message);
    }
}

/// When the shipper of a line started, and the number that it gave the line.
fn label(line: &str) -> Option<(u128, u64)> {
    let mut words = line.split(' ');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

fn last_label(path: &str) -> Option<(u128, u64)> {
    let lines = BufReader::new(File::open(path).ok()?).lines();
    label(&lines.map_while(|line| line.ok()).last()?)
}

/// Ships 20,000 lines and kills the collector again and again meanwhile.
fn demonstrate() -> Result<()> {
    const LINES: u64 = 20_000;
    let name = format!("log-{}", std::process::id());
    let path = std::env::temp_dir().join(format!("{name}.txt"));
    let path = path.to_str().ok_or("the directory has an odd name")?;
    let start = |args: &[&str]| -> std::io::Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(args).stdin(Stdio::piped()).spawn()
    };
    let mut collector = start(&["collect", &name, path])?;
    let mut shipper = start(&["ship", &name])?;
    let mut lines = shipper.stdin.take().ok_or("no pipe to the shipper")?;
    let mut kills = 0;
    for number in 0..LINES {
        writeln!(lines, "something happened for the {number}th time")?;
        if number % 4000 == 3999 {
            collector.kill()?; // SIGKILL: it can neither finish nor say good-bye
            collector.wait()?;
            collector = start(&["collect", &name, path])?;
            kills += 1;
        }
    }
    drop(lines);
    shipper.wait()?;
    collector.wait()?;
    let lines = BufReader::new(File::open(path)?).lines();
    let number = |line: std::io::Result<String>| Ok(label(&line?).map(|(_, number)| number));
    let numbers: Vec<Option<u64>> = lines.map(number).collect::<std::io::Result<_>>()?;
    std::fs::remove_file(path)?;
    let once = numbers.iter().copied().eq((0..LINES).map(Some));
    println!("{LINES} lines, {kills} kills; each line once and in order: {once}");
    Ok(())
}
