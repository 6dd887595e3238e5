//! `completions`: a script for a shell, generated from the arguments themselves.

use crate::args::Cli;
use crate::common::print;
use crate::exit::Exit;
use clap::CommandFactory;

pub(crate) fn completions(shell: clap_complete::Shell) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "windtunnel", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
