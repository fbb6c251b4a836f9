//! A pipeline of three stages, all of them this program: numbers, their squares, and the sum.
//!
//! Run it with `cargo run --example pipeline`. The stages are processes of their own; since they
//! call `ringway::stage`, rings in shared memory join them. Each of them would also work in a
//! pipeline of the shell's: `pipeline numbers | pipeline squares | pipeline sum`.

use ringway::pipeline::{Pipeline, Stage};
use ringway::{RecvError, stage};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const COUNT: u64 = 100_000;

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("numbers") => numbers(),
        Some("squares") => squares(),
        Some("sum") => sum(),
        _ => supervise(),
    }
}

/// Starts the stages and waits for them.
fn supervise() -> Result<()> {
    let program = std::env::current_exe()?;
    let stages = ["numbers", "squares", "sum"].map(|role| Stage::command(&program, [role.into()]));
    let outcome = Pipeline::new(stages).start()?.wait()?;
    match outcome.cause() {
        None => Ok(()),
        Some(_) => Err(outcome.to_string().into()),
    }
}

fn numbers() -> Result<()> {
    let mut output = stage::output()?;
    for number in 1..=COUNT {
        output.send_soon(&number.to_le_bytes())?;
    }
    output.close()?;
    Ok(())
}

fn squares() -> Result<()> {
    let (mut input, mut output) = (stage::input()?, stage::output()?);
    loop {
        match input.recv() {
            Ok(message) => {
                let number = u64::from_le_bytes((&message[..]).try_into()?);
                output.send_soon(&(number * number).to_le_bytes())?;
            }
            Err(RecvError::Closed) => break,
            Err(error) => return Err(error.into()),
        }
    }
    output.close()?;
    Ok(())
}

fn sum() -> Result<()> {
    let mut input = stage::input()?;
    let mut sum = 0u64;
    loop {
        match input.recv() {
            Ok(message) => sum += u64::from_le_bytes((&message[..]).try_into()?),
            Err(RecvError::Closed) => break,
            Err(error) => return Err(error.into()),
        }
    }
    println!("the sum of the first {COUNT} squares is {sum}");
    Ok(())
}
