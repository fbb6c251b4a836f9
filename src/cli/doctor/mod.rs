//! `ringway doctor`: what this machine offers, what is missing, and what to do about it.

use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;

use super::Failure;
use super::show;

mod checks;

/// Check what this machine offers Ringway, and say what to do about what is missing
///
/// Exit status: 0 if everything needed is there, 1 if something that Ringway needs is missing. What is
/// merely slower or smaller than it could be is a hint.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ringway doctor
  ringway doctor --json | jq '.[] | select(.verdict != \"good\")'
  docker run --shm-size=1g IMAGE ringway doctor")]
pub(crate) struct Args {
    /// Only what is not good
    #[arg(long, short)]
    quiet: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was found out about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What about.
    pub(crate) about: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
}

/// How good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// As it should be.
    Good,
    /// It works, slower, or less of it than might be wanted.
    Hint,
    /// Something that Ringway needs is missing.
    Bad,
}

pub(crate) fn main(args: Args) -> Result<ExitCode, Failure> {
    let findings = checks::all();
    let bad = findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Bad)
        .count();
    let hints = findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Hint)
        .count();
    let shown = findings
        .iter()
        .filter(|finding| !args.quiet || finding.verdict != Verdict::Good);
    let mut out = std::io::stdout().lock();
    if args.json {
        let shown: Vec<&Finding> = shown.collect();
        serde_json::to_writer_pretty(&mut out, &shown).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        let width = show::width().min(100);
        for finding in shown {
            print(&mut out, finding, width)?;
        }
        match (bad, hints) {
            (0, 0) => writeln!(out, "all is well")?,
            (0, _) => writeln!(out, "Ringway works here; {hints} hints")?,
            (1, _) => writeln!(out, "something that Ringway needs is missing")?,
            _ => writeln!(out, "{bad} things that Ringway needs are missing")?,
        }
    }
    Ok(if bad == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Where what was found begins.
const MARGIN: usize = 20;

fn print(out: &mut impl Write, finding: &Finding, width: usize) -> std::io::Result<()> {
    let mark = match finding.verdict {
        Verdict::Good => "ok  ",
        Verdict::Hint => "hint",
        Verdict::Bad => "BAD ",
    };
    let mut lead = format!("{mark} {:<15}", finding.about);
    for line in wrapped(&finding.found, width.saturating_sub(MARGIN)) {
        writeln!(out, "{lead}{line}")?;
        lead = " ".repeat(MARGIN);
    }
    for line in finding
        .remedy
        .iter()
        .flat_map(|remedy| wrapped(&format!("-> {remedy}"), width.saturating_sub(MARGIN)))
    {
        writeln!(out, "{lead}{line}")?;
    }
    Ok(())
}

/// Text in lines of at most `width` characters.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in show::safe(text).split_whitespace() {
        let line = lines.last_mut().map_or(0, |line| line.chars().count());
        match lines.last_mut() {
            Some(last) if line == 0 => last.push_str(word),
            Some(last) if line + 1 + word.chars().count() <= width => {
                last.push(' ');
                last.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn text_is_wrapped_between_words() {
        assert_eq!(wrapped("one two three", 8), ["one two", "three"]);
        assert_eq!(wrapped("unbreakable", 4), ["unbreakable"]);
    }
}
