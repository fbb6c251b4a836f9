//! `ringway completions`: what a shell needs to complete the tool's arguments.

use std::process::ExitCode;

use super::{Failure, visible};

/// Print completions for a shell
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  source <(ringway completions bash)
  ringway completions zsh > ~/.zfunc/_ringway
  ringway completions fish > ~/.config/fish/completions/ringway.fish")]
pub(crate) struct Args {
    /// Which shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

pub(crate) fn main(args: Args) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut visible(), "ringway", &mut script);
    std::io::Write::write_all(&mut std::io::stdout(), &script)?;
    Ok(ExitCode::SUCCESS)
}
