//! A progress bar for long work, where somebody is there to see it.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use indicatif::{ProgressBar, ProgressStyle};

/// How many messages go by between two looks at the clock.
const STEP: u64 = 1024;

/// Counts messages and bytes; shows them on standard error if that is a terminal.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    messages: u64,
    bytes: u64,
}

impl Progress {
    /// `input`, when it is a file, tells how much there is to come. Without one, what comes goes to standard
    /// output, and a terminal cannot show both.
    pub(super) fn new(input: Option<&dyn AsFd>) -> Progress {
        let is_free = input.is_some() || !std::io::stdout().is_terminal();
        let bar = (is_free && std::io::stderr().is_terminal()).then(|| {
            let total = input
                .and_then(|input| input.as_fd().try_clone_to_owned().ok())
                .and_then(|file| std::fs::File::from(file).metadata().ok())
                .filter(std::fs::Metadata::is_file)
                .map(|meta| meta.len());
            let (bar, template) = match total {
                Some(total) => (
                    ProgressBar::new(total),
                    "{bar:40} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {msg} eta {eta}",
                ),
                None => (
                    ProgressBar::new_spinner(),
                    "{spinner} {binary_bytes} {binary_bytes_per_sec} {msg} in {elapsed}",
                ),
            };
            match ProgressStyle::with_template(template) {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        Progress {
            bar,
            messages: 0,
            bytes: 0,
        }
    }

    /// Another message.
    #[inline]
    pub(super) fn add(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
        if self.messages.is_multiple_of(STEP) {
            self.show();
        }
    }

    fn show(&self) {
        if let Some(bar) = &self.bar {
            bar.set_position(self.bytes);
            bar.set_message(format!("{} messages", self.messages));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.show();
        if let Some(bar) = &self.bar {
            bar.finish();
            // It leaves the cursor behind what it drew.
            eprintln!();
        }
    }
}
