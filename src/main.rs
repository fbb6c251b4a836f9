//! The command-line tool `ringway`. Everything it does is in the library's `cli` module.

fn main() -> std::process::ExitCode {
    ringway::cli::main()
}
