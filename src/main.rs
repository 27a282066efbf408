//! The command line.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use satsuma::config::{Config, Flags};
use satsuma::http::{site::Site, tls};
use satsuma::server::{Server, healthcheck};

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
}

#[tokio::main]
async fn main() -> ExitCode {
    let Err(error) = run(Cli::parse()).await else { return ExitCode::SUCCESS };
    eprintln!("satsuma: {error}");
    ExitCode::FAILURE
}

async fn run(Cli { command, config, flags }: Cli) -> Result<(), Box<dyn Error>> {
    let loaded = Config::load(config.as_deref(), std::env::vars_os(), &flags)?;
    for warning in loaded.warnings {
        eprintln!("satsuma: {warning}");
    }
    match command.unwrap_or(Command::Serve) {
        Command::Serve => {
            satsuma::telemetry::init(&loaded.config.log)?;
            Server::start(loaded.config).await?.run_until_signal().await?;
        }
        Command::CheckConfig => {
            let warnings = tls::check(&loaded.config)?.into_iter().chain(Site::check(&loaded.config)?);
            warnings.for_each(|warning| eprintln!("satsuma: {warning}"));
            println!("the configuration is good");
        }
        Command::Healthcheck => healthcheck(&loaded.config).await?,
    }
    Ok(())
}
