//! Prices for everybody: one process sends, any number receive, nobody is waited for.
//!
//! ```text
//! cargo run --example market_data
//! ```
//!
//! It starts itself again, as four subscribers: one that keeps up; one that is slow, and is told what it
//! missed; one that comes late, and begins with the last ten prices; and one that only looks on, with
//! memory that it cannot write to.

use std::process::{Child, Command};
use std::time::Duration;

use ringway::RecvError;
use ringway::broadcast::{self, Config, Policy, Ring, Start, Subscriber};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const TICKS: u64 = 20_000;
const LATE: u64 = 15_000;

/// What goes through the ring: any bytes do.
fn tick(number: u64) -> [u8; 16] {
    let price = 10_000 + number % 500;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[8..].copy_from_slice(&price.to_le_bytes());
    bytes
}

fn main() -> Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => exchange(),
        [who, name] => subscriber(who, name),
        _ => Err("usage: market_data".into()),
    }
}

/// Sends the prices.
fn exchange() -> Result<()> {
    let name = format!("market-data-{}", std::process::id());
    let config = Config::default().policy(Policy::Lossy).capacity(16 << 10);
    let ring = broadcast::create(&name, config)?;
    let mut prices = ring.producer()?;
    let mut others: Vec<Child> = Vec::new();
    for (count, who) in ["quick", "slow", "looking on"].into_iter().enumerate() {
        others.push(start(who, &name)?);
        if who != "looking on" {
            while ring.living_subscribers()? <= count {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    for number in 0..TICKS {
        if number == LATE {
            others.push(start("late", &name)?);
            while ring.living_subscribers()? < 3 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        prices.send(&tick(number))?; // never waits
        if number % 100 == 0 {
            std::thread::sleep(Duration::from_millis(1)); // the market is not that busy
        }
    }
    prices.close();
    for mut other in others {
        if !other.wait()?.success() {
            return Err("a subscriber failed".into());
        }
    }
    Ok(())
}

fn start(who: &str, name: &str) -> Result<Child> {
    let this = std::env::current_exe()?;
    Ok(Command::new(this).args([who, name]).spawn()?)
}

/// Receives until the exchange closes, and says what it saw.
fn subscriber(who: &str, name: &str) -> Result<()> {
    let mut prices: Subscriber = match who {
        "late" => broadcast::attach(name)?.subscriber_from(Start::Last(10))?,
        "looking on" => Ring::observe(name)?.observer(Start::Oldest)?,
        _ => broadcast::attach(name)?.subscriber()?,
    };
    let first = prices.sequence();
    let (mut seen, mut missed) = (0, 0);
    loop {
        match prices.recv() {
            Ok(tick_seen) => {
                // The sequence says which message it is: nothing is out of order, nothing is torn.
                assert_eq!(*tick_seen, tick(tick_seen.sequence()));
                seen += 1;
            }
            // It was too slow, and now knows by how much; it goes on with the oldest that is there.
            Err(RecvError::Missed { count }) => missed += count,
            Err(RecvError::Closed) => break,
            Err(error) => return Err(error.into()),
        }
        if who == "slow" && seen % 10 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert_eq!(first + seen + missed, TICKS);
    match who {
        "late" => {
            assert!(first >= LATE - 10);
            println!("late: began with the last ten");
        }
        "slow" => println!("slow: missed {}", if missed > 0 { "some" } else { "none" }),
        _ => println!("{who}: every price accounted for"),
    }
    Ok(())
}
