//! An asynchronous program at the receiving end of rings whose senders know nothing of it.
//!
//! ```text
//! cargo run --example async_tokio --features tokio
//! ```
//!
//! Two threads, which could as well be processes, send as usual. One task waits for both rings and for
//! a timer at once; whatever it does not get round to is still in the ring.

use std::time::Duration;

use ringway::RecvError;
use ringway::spsc::{self, Config};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let name = |what| format!("example-{what}-{}", std::process::id());
    let orders = spsc::create(&name("orders"), Config::default())?;
    let prices = spsc::typed::<[f64; 2]>().create(&name("prices"))?;
    let (mut order_tx, mut price_tx) = (orders.producer()?, prices.producer()?);

    let senders = [
        std::thread::spawn(move || {
            (0..1000).try_for_each(|id| order_tx.send(format!("buy {id}").as_bytes()))
        }),
        std::thread::spawn(move || {
            (0..1000).try_for_each(|tick| price_tx.send(&[tick as f64, 1.0]))
        }),
    ];

    let mut orders = orders.consumer()?.into_async()?;
    let mut prices = prices.consumer()?.into_async()?;
    let (mut bought, mut volume) = (0, 0.0);
    let (mut more_orders, mut more_prices) = (true, true);
    let mut second = tokio::time::interval(Duration::from_secs(1));
    while more_orders || more_prices {
        tokio::select! {
            order = orders.recv(), if more_orders => match order {
                Ok(_) => bought += 1,
                Err(RecvError::Closed) => more_orders = false,
                Err(error) => return Err(error.into()),
            },
            price = prices.recv(), if more_prices => match price {
                Ok([_, quantity]) => volume += quantity,
                Err(RecvError::Closed) => more_prices = false,
                Err(error) => return Err(error.into()),
            },
            _ = second.tick() => eprintln!("{bought} orders so far"),
        }
    }
    for sender in senders {
        sender.join().expect("a sender does not panic")?;
    }
    println!("{bought} orders, a volume of {volume}");
    Ok(())
}
