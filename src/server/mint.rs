//! `satsuma token`: an access token, signed with the first key of the configuration. The server need not run.

use std::fmt::Write;
use std::time::Duration;

use crate::auth::access_token::{AccessTokens, TokenGrants, TokenPublish};
use crate::auth::minting::TokenRequest;
use crate::clock::wall_clock;
use crate::config::Config;
use crate::operate::RevocationCommand;

/// The end of the help of `satsuma token`.
pub const TOKEN_HELP: &str = "\
Examples:
  satsuma token --room standup --name Ada
  satsuma token --room 'team-*' --name Ada --identity ada@example.com --grant create --grant moderate --valid 1day
  satsuma token --room standup --name Recorder --grant agent --json
  satsuma token revoke --identity ada@example.com";

/// A token to be made, or the revocation of tokens.
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct TokenOptions {
    /// Another command on tokens than making one.
    #[command(subcommand)]
    pub command: Option<RevocationCommand>,
    /// The room, or the beginning of rooms' names and *.
    #[arg(long, required = true)]
    room: Option<String>,
    /// The name that others see.
    #[arg(long, required = true)]
    name: Option<String>,
    /// The identity, the same in all tokens of one person; by default a random one.
    #[arg(long)]
    identity: Option<String>,
    /// A right beside those of a participant (join, publish, subscribe, chat); several times for several.
    #[arg(long, value_name = "RIGHT")]
    grant: Vec<Grant>,
    /// A right of a participant that is not given; several times for several.
    #[arg(long, value_name = "RIGHT")]
    deny: Vec<Denied>,
    /// The lifetime, such as 30m or 1day.
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    valid: Duration,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A right beside those of a participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Grant {
    /// Start a meeting.
    Create,
    /// Act on other members.
    Moderate,
    /// Be in a room without being shown to its members.
    Hidden,
    /// Act for a program.
    Agent,
    /// Use the operators' API.
    Admin,
}

/// A right of a participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Denied {
    /// Publish media of any kind.
    Publish,
    /// Receive the media of others.
    Subscribe,
    /// Write to the chat.
    Chat,
}

/// Makes a token with the keys of this configuration; returns the text to print.
///
/// # Errors
/// A sentence for the operator.
pub fn mint(config: &Config, options: &TokenOptions) -> Result<String, String> {
    let tokens = AccessTokens::open(&config.auth).map_err(|error| error.to_string())?;
    let tokens = tokens.ok_or(
        "there is no key in auth.keys, so the server would accept no token; add a table [[auth.keys]] with id and \
         secret to the configuration",
    )?;
    let TokenOptions { room, name, identity, grant, deny, valid, json, .. } = options;
    let has = |wanted| grant.contains(&wanted);
    let grants = TokenGrants {
        create: has(Grant::Create),
        moderate: has(Grant::Moderate),
        hidden: has(Grant::Hidden),
        agent: has(Grant::Agent),
        admin: has(Grant::Admin),
        chat: !deny.contains(&Denied::Chat),
        publish: TokenPublish::All(!deny.contains(&Denied::Publish)),
        subscribe: !deny.contains(&Denied::Subscribe),
        ..TokenGrants::default()
    };
    let request = TokenRequest {
        // The command line requires both.
        room: room.clone().unwrap_or_default(),
        name: name.clone().unwrap_or_default(),
        identity: identity.clone(),
        grants,
        valid: Some(*valid),
    };
    let minted = request.mint(&tokens, &config.public_address(), wall_clock());
    let minted = minted.map_err(|defect| format!("the token would be refused: {defect}"))?;
    if *json {
        return serde_json::to_string_pretty(&minted)
            .map(|text| text + "\n")
            .map_err(|error| error.to_string());
    }
    let mut text = format!("token    {}\nexpires  {}\n", minted.token, minted.expires);
    if let Some(link) = &minted.link {
        let _ = writeln!(text, "link     {link}");
    }
    Ok(text)
}
