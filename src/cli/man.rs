//! `ringway man`: manual pages, from the same definition as `--help`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use super::{Failure, command};

/// Write manual pages
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ringway man | man -l -
  ringway man ~/.local/share/man/man1 && man ringway-run")]
pub(crate) struct Args {
    /// Where to write a page for each command; without it, the tool's own page is printed
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

pub(crate) fn main(args: Args) -> Result<ExitCode, Failure> {
    match args.directory {
        Some(directory) => {
            let failed =
                |error: std::io::Error| Failure::new(format!("{}: {error}", directory.display()));
            std::fs::create_dir_all(&directory).map_err(failed)?;
            clap_mangen::generate_to(command(), &directory).map_err(failed)?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command()).render(&mut page)?;
            std::io::stdout().write_all(&page)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
