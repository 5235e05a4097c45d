//! The `rless` command.

fn main() -> std::process::ExitCode {
    rless::cli::main()
}
