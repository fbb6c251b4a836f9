//! What the models share: exploring with a count, deaths before each step, and mutants that have to be found.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::primitive::{begin, die_after};

/// Explores `f`, with as many preemptions as `LOOM_MAX_PREEMPTIONS` says. How many executions there were;
/// fails if there was but one.
pub fn executions(f: impl Fn() + Sync + Send + 'static) -> usize {
    executions_within(3, f)
}

/// As [`executions`]; with so many preemptions where the environment says nothing.
pub fn executions_within(preemptions: usize, f: impl Fn() + Sync + Send + 'static) -> usize {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.max_branches = 20_000;
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        begin();
        f();
    });
    let count = count.load(Ordering::Relaxed);
    assert!(count > 1, "a model that ran once shows nothing");
    count
}

/// Says how many executions a model had.
pub fn say(name: &str, executions: usize) {
    eprintln!("{name}: {executions} executions");
}

/// As [`executions`], and says it.
pub fn explore(name: &str, f: impl Fn() + Sync + Send + 'static) {
    say(name, executions(f));
}

/// One who dies before a certain step of its own: see [`deaths`].
#[derive(Clone)]
pub struct Mortal {
    steps: u32,
    died: Arc<AtomicBool>,
}

impl Mortal {
    /// Runs `f` until the death. `None` if it came before the end.
    pub fn run<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
        let done = die_after(self.steps, f);
        if done.is_none() {
            self.died.store(true, Ordering::Relaxed);
        }
        done
    }
}

/// Explores `f` with a death before the first access to shared memory, before the second, and so on until
/// nobody dies in any execution.
pub fn deaths(name: &str, f: impl Fn(&Mortal) + Clone + Sync + Send + 'static) {
    deaths_within(3, name, f);
}

/// As [`deaths`]; with so many preemptions where the environment says nothing.
pub fn deaths_within(
    preemptions: usize,
    name: &str,
    f: impl Fn(&Mortal) + Clone + Sync + Send + 'static,
) {
    let (mut steps, mut count) = (0, 0);
    loop {
        let died = Arc::new(AtomicBool::new(false));
        let mortal = Mortal {
            steps,
            died: died.clone(),
        };
        let f = f.clone();
        count += executions_within(preemptions, move || f(&mortal));
        if !died.load(Ordering::Relaxed) {
            break;
        }
        steps += 1;
    }
    assert!(steps > 1, "died nowhere");
    say(&format!("{name}: dead before each of {steps} steps"), count);
}

/// Runs the model in a process of its own, since a failing model may abort, and expects it to fail.
pub fn is_caught(test: &str, model: fn()) {
    if std::env::var_os("RINGWAY_MUTANT").is_some() {
        return model();
    }
    let output = std::process::Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", test])
        .env("RINGWAY_MUTANT", "1")
        .output()
        .expect("own executable");
    assert!(
        !output.status.success(),
        "the model does not notice the bug"
    );
}

/// A test for each model named, of the module `models`.
#[macro_export]
macro_rules! models {
    ($($name:ident),* $(,)?) => { $(#[test] fn $name() { models::$name() })* };
}

/// A test for each mutant of an algorithm (`build.rs` writes them): the model named fails for it.
#[macro_export]
macro_rules! mutants {
    ($algorithm:literal, $models:literal; $($name:ident: $model:ident),* $(,)?) => {
        $(
            mod $name {
                // What the algorithm uses of the modules beside it.
                use super::*;
                pub(crate) mod algorithm {
                    include!(concat!(env!("OUT_DIR"), "/", $algorithm, "_", stringify!($name), ".rs"));
                }
                pub(crate) mod models {
                    include!(concat!("models/", $models, ".rs"));
                }
            }

            #[test]
            fn $name() {
                $crate::harness::is_caught(stringify!($name), self::$name::models::$model)
            }
        )*
    };
}
