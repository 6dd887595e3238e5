//! `completions`: a script for a shell, generated from the arguments themselves.

use crate::args::Cli;
use crate::exit::Exit;
use clap::CommandFactory;
use std::io::Write as _;

pub(crate) fn completions(shell: clap_complete::Shell) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "windtunnel", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(Exit::Done)
}
