//! The `suture` program: parses its arguments and hands over to the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    suture::cli::main()
}
