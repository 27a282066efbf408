//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use satsuma::config::{Config, Flags};
use satsuma::server::{Server, check, healthcheck};

/// A self-hosted realtime room server that takes the place of Orange Meets' own server.
#[derive(Parser)]
#[command(version, after_help = "Every setting is explained in config/satsuma.toml.")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// The configuration file; by default satsuma.toml or config/satsuma.toml, if there is one.
    #[arg(long, global = true, value_name = "FILE", env = "SATSUMA_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server; this is what happens without a command.
    Serve,
    /// Report every fault in the configuration.
    CheckConfig,
    /// Ask the running server whether it is alive.
    Healthcheck,
    Load(satsuma::load::options::Options),
}

fn main() -> ExitCode {
    let done = match Cli::parse() {
        Cli { command: Some(Command::Load(options)), .. } => satsuma::load::command::main(&options),
        cli => run(cli),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    eprintln!("satsuma: {error}");
    ExitCode::FAILURE
}

#[tokio::main]
async fn run(Cli { command, config, flags }: Cli) -> Result<(), Box<dyn std::error::Error>> {
    let loaded = Config::load(config.as_deref(), std::env::vars_os(), &flags)?;
    loaded.warnings.iter().for_each(|warning| eprintln!("satsuma: {warning}"));
    match command {
        Some(Command::CheckConfig) => {
            check(&loaded.config)?.iter().for_each(|warning| eprintln!("satsuma: {warning}"));
            println!("the configuration is good");
        }
        Some(Command::Healthcheck) => healthcheck(&loaded.config).await?,
        _ => {
            satsuma::telemetry::init(&loaded.config.log)?;
            Server::start(loaded.config).await?.run_until_signal().await?;
        }
    }
    Ok(())
}
