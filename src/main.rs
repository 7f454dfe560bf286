//! The program `highwater`: runs the statements of a SQL file.

mod cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    match cli::run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("highwater: {error:?}");
            std::process::ExitCode::FAILURE
        }
    }
}
