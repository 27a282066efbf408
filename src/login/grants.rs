//! From the claims of a user who signed in to the claims of an access token.

use std::time::SystemTime;

use serde_json::{Map, Value};

use crate::auth::access_token::{AccessClaims, TokenGrants};
use crate::auth::id_token::IdClaims;
use crate::config::{OidcConfig, OidcGrant};
use crate::id::{text_is_valid, visible};

/// Maximum characters of a name, as of that of a token.
const MAX_NAME_CHARS: usize = 64;

/// Groups of a user that are read.
const MAX_GROUPS: usize = 10_000;

/// Everybody, as a group.
const EVERYBODY: &str = "*";

/// The claims of the token of a user; none if the user is in no group that may enter.
pub(super) fn token_claims(config: &OidcConfig, claims: &IdClaims, now: SystemTime) -> Option<AccessClaims> {
    let grants = grants(config, &claims.others)?;
    let iat = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let exp = iat.saturating_add(config.session.as_secs());
    let names = [&claims.name, &claims.preferred_username, &claims.email];
    let name = names.into_iter().flatten().find_map(|name| shown(name));
    let (sub, room) = (claims.sub.clone(), EVERYBODY.to_owned());
    Some(AccessClaims { sub, name, room, grants, iat: Some(iat), nbf: None, exp })
}

/// A name as it may be shown; none if nothing of it may.
fn shown(name: &str) -> Option<String> {
    let name: String = visible(name.trim()).chars().take(MAX_NAME_CHARS).collect();
    let name = name.trim();
    text_is_valid(name, MAX_NAME_CHARS).then(|| name.to_owned())
}

/// The grants of a user with these claims; none if the user is in none of the configured groups.
fn grants(config: &OidcConfig, claims: &Map<String, Value>) -> Option<TokenGrants> {
    let mut grants = TokenGrants::default();
    if config.groups.is_empty() {
        return Some(grants);
    }
    let of_user = groups(claims, &config.groups_claim);
    let is_of = |group: &str| group == EVERYBODY || of_user.contains(&group);
    let matching: Vec<_> = config.groups.iter().filter(|group| is_of(&group.group)).collect();
    for grant in matching.iter().flat_map(|group| &group.grants) {
        *match grant {
            OidcGrant::Create => &mut grants.create,
            OidcGrant::Moderate => &mut grants.moderate,
            OidcGrant::Hidden => &mut grants.hidden,
            OidcGrant::Agent => &mut grants.agent,
            OidcGrant::Admin => &mut grants.admin,
        } = true;
    }
    (!matching.is_empty()).then_some(grants)
}

/// The groups in a claim: texts, or one. The claim has this name, or is at this path of names with dots.
fn groups<'a>(claims: &'a Map<String, Value>, claim: &str) -> Vec<&'a str> {
    let at_path = || {
        let mut names = claim.split('.');
        let first = claims.get(names.next()?)?;
        names.try_fold(first, |value, name| value.get(name))
    };
    let found = claims.get(claim).or_else(at_path);
    match found {
        Some(Value::String(only)) => vec![only],
        Some(Value::Array(all)) => all.iter().take(MAX_GROUPS).filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::config::OidcGroup;

    fn config(groups: &[(&str, &[OidcGrant])]) -> OidcConfig {
        let group = |(group, grants): &(&str, &[OidcGrant])| OidcGroup {
            group: (*group).to_owned(),
            grants: grants.to_vec(),
        };
        OidcConfig {
            issuer: "https://login.example".parse().unwrap(),
            client_id: "meet".into(),
            client_secret: None,
            scopes: "openid".into(),
            groups_claim: "groups".into(),
            groups: groups.iter().map(group).collect(),
            session: Duration::from_secs(3600),
        }
    }

    fn granted(config: &OidcConfig, claims: Value) -> Option<TokenGrants> {
        grants(config, claims.as_object().unwrap())
    }

    #[test]
    fn groups_give_their_grants_and_others_stay_out() {
        let participant = TokenGrants::default();
        assert_eq!(granted(&config(&[]), json!({})), Some(participant.clone()));
        let staff = config(&[("staff", &[OidcGrant::Create]), ("hosts", &[OidcGrant::Moderate])]);
        assert_eq!(granted(&staff, json!({})), None);
        assert_eq!(granted(&staff, json!({"groups": ["guests", 7]})), None);
        assert_eq!(granted(&staff, json!({"groups": {"staff": true}})), None);
        let create = TokenGrants { create: true, ..participant.clone() };
        assert_eq!(granted(&staff, json!({"groups": "staff"})), Some(create.clone()));
        assert_eq!(granted(&staff, json!({"groups": ["x", "staff"]})), Some(create.clone()));
        let both = TokenGrants { moderate: true, ..create };
        assert_eq!(granted(&staff, json!({"groups": ["hosts", "staff"]})), Some(both.clone()));
        let all = config(&[("*", &[]), ("hosts", &[OidcGrant::Moderate, OidcGrant::Create])]);
        assert_eq!(granted(&all, json!({})), Some(participant.clone()));
        assert_eq!(granted(&all, json!({"groups": ["hosts"]})), Some(both));
        // A user's group of that name is no one's right.
        let hosts = config(&[("hosts", &[])]);
        assert_eq!(granted(&hosts, json!({"groups": ["*"]})), None);
    }

    #[test]
    fn groups_may_be_deeper_in_the_claims() {
        let claims = json!({"realm": {"roles": ["a"]}, "https://x.example/groups": ["b"]});
        let groups = |claim: &str| groups(claims.as_object().unwrap(), claim).join(",");
        assert_eq!(groups("realm.roles"), "a");
        assert_eq!(groups("https://x.example/groups"), "b");
        assert_eq!(
            (groups("realm"), groups("realm.x"), groups("x.y")),
            (String::new(), String::new(), String::new())
        );
    }

    #[test]
    fn name_is_the_first_that_can_be_shown() {
        let long = "x".repeat(100);
        for (name, other, found) in [
            ("Ada", "ada", Some("Ada")),
            (" \u{200b} ", "ada", Some("ada")),
            ("a\nb", "", None),
            (&long, "", Some(&long[..64])),
        ] {
            let claims = json!({"sub": "1", "exp": 0, "nonce": "", "aud": "", "name": name, "email": other});
            let claims: IdClaims = serde_json::from_value(claims).unwrap();
            let token = token_claims(&config(&[]), &claims, SystemTime::UNIX_EPOCH + Duration::from_secs(7));
            let token = token.unwrap();
            assert_eq!((token.name.as_deref(), token.iat, token.exp), (found, Some(7), 3607), "{name}");
        }
    }
}
