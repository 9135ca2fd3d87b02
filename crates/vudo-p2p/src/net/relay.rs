//! Relays: where nodes meet that cannot reach each other.
//!
//! ```text
//! node behind a NAT ==TCP==> relay <==TCP== whoever dials
//!                    QUIC packets, which the relay cannot read
//! ```
//!
//! A node that is to be found keeps a connection to one of its relays, the nearest, and its tickets name
//! all of them. Whoever dials needs no relay of its own: iroh connects to whatever relay an address
//! names, known or not. Packets go over the relay until the two sides have found a direct way.
//!
//! **A node without relays is what it would be without this module.** It learns only from a ticket that it
//! needs a transport for relays, and binds a second endpoint for that ([`Relaying`]). One that has the
//! transport from the start would do as far as the network goes: with an empty map of relays iroh 1.4.1
//! makes no report on the network (`DirectAddrUpdateState::run` in its `socket.rs`: no probes, no lookups of
//! names, no mapping of ports), and the transport waits for its first packet. But it logs an error whenever it
//! is closed, and nobody should read of relays who has none. `tests/namespaces.rs` looks at the system calls.
//!
//! **TLS.** iroh checks the certificate of an `https` relay against the roots of Mozilla's list that are
//! compiled in (`webpki-roots`), and not against what the system trusts: an authority of one's own is not
//! accepted. With `http` the relay and whoever listens learn who talks to whom, and no more than that:
//! what is relayed is QUIC, between the keys of the two nodes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use iroh::dns::DnsResolver;
use iroh::endpoint::{Builder, NetReportConfig, RelayStatus};
use iroh::{Endpoint, RelayConfig, RelayMap, RelayMode, RelayUrl, Watcher};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::error::{Error, Result};
use crate::limits::{RELAY_SEARCH_INTERVAL, RELAYS_MAX, TICKET_URL_BYTES_MAX};
use crate::net::ALPN;
use crate::net::driver::asked_to_leave;
use crate::net::node::bind_quic;
use crate::ticket::without_query;

/// The relays of a configuration.
pub(super) fn parse_all(relays: &[String]) -> Result<Vec<RelayUrl>> {
    if relays.len() > RELAYS_MAX {
        return Err(Error::TooManyRelays { count: relays.len() });
    }
    let mut urls: Vec<RelayUrl> = Vec::new();
    for relay in relays {
        let url = parse(relay)?;
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    Ok(urls)
}

/// The address of a relay.
pub(super) fn parse(relay: &str) -> Result<RelayUrl> {
    let bad = |what: &str| Error::BadRelay { relay: relay.to_owned(), what: what.to_owned() };
    let url: RelayUrl = relay.parse().map_err(|_| bad("it is no URL"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("it does not begin with https:// or http://"));
    }
    if url.as_str().len() > TICKET_URL_BYTES_MAX {
        return Err(bad(&format!("it is longer than {TICKET_URL_BYTES_MAX} bytes")));
    }
    Ok(url)
}

/// Has an endpoint use these relays and no others, and dial over those that an address names.
pub(super) fn enable(builder: Builder, relays: &[RelayUrl]) -> Builder {
    let map = RelayMap::from_iter(relays.iter().map(config_of));
    // It would ask port 80 of the relay's host, and all that came of it is that iroh looks more often.
    let mut report = NetReportConfig::default();
    report.captive_portal_check = false;
    // Where the system's servers do not answer, iroh would ask public ones.
    let names = DnsResolver::builder().with_system_defaults().disable_fallback().build();
    builder.relay_mode(RelayMode::Custom(map)).net_report_config(report).dns_resolver(names)
}

/// An endpoint that dials over relays that others name, with the key and on the interface of another
/// endpoint. Nobody is told of it, so nobody has to be let in.
pub(super) struct Relaying {
    endpoint: Endpoint,
    /// Ends with this.
    _refusing: JoinSet<()>,
}

impl Relaying {
    /// # Errors
    /// No port is free.
    pub(super) async fn bind(secret_key: [u8; 32], beside: &Endpoint) -> Result<Relaying> {
        let bound = beside.bound_sockets().first().map(SocketAddr::ip);
        let address = SocketAddr::new(bound.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), 0);
        let endpoint = bind_quic(secret_key, ALPN, address, |builder| enable(builder, &[])).await?;
        let mut refusing = JoinSet::new();
        let calls = endpoint.clone();
        refusing.spawn(async move {
            while let Some(incoming) = calls.accept().await {
                incoming.refuse();
            }
        });
        Ok(Relaying { endpoint, _refusing: refusing })
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

/// How a relay is used: one with a certificate also says over QUIC which address it sees.
fn config_of(url: &RelayUrl) -> RelayConfig {
    match url.scheme() {
        "https" => RelayConfig::from(url.clone()),
        _ => RelayConfig::new(url.clone(), None),
    }
}

/// Says in the log whether others find a node at a relay, until the node leaves. Until they do it has the
/// endpoint look for a relay again and again: by itself it looks twice a minute, and a node that is started
/// before its relay, or before its network, should not be away for that long. To one that it has been at
/// iroh goes back by itself, after pauses that grow to half a minute, unless another one answers.
pub(super) async fn stay(
    endpoint: Endpoint,
    relays: Vec<RelayUrl>,
    mut leave: watch::Receiver<bool>,
) {
    tokio::select! {
        () = asked_to_leave(&mut leave) => {}
        () = search(&endpoint, &relays) => {}
    }
}

/// Ends when the endpoint is gone.
async fn search(endpoint: &Endpoint, relays: &[RelayUrl]) {
    let mut homes = endpoint.home_relay_status();
    // What was said last, if anything was: where the node is.
    let mut said: Option<Option<RelayUrl>> = None;
    let mut was_at_one = true;
    let mut search_at = Instant::now();
    loop {
        let now = homes.get();
        let home = now.iter().find(|home| home.is_connected()).map(|home| home.url().clone());
        let is_at_one = home.is_some();
        if was_at_one && !is_at_one {
            search_at = Instant::now() + RELAY_SEARCH_INTERVAL;
        }
        was_at_one = is_at_one;
        if is_at_one && said.as_ref() != Some(&home) {
            let relay = home.as_ref().map(|home| without_query(home.as_str()));
            tracing::info!(relay, "others find this node at a relay");
            said = Some(home);
        }
        tokio::select! {
            updated = homes.updated() => if updated.is_err() { return },
            () = sleep_until(search_at), if !is_at_one => {
                if said != Some(None) {
                    let reason = why_not(&now);
                    tracing::warn!(%reason, "nobody finds this node at a relay; it keeps trying");
                    said = Some(None);
                }
                // What is put into its map again makes iroh look at all of it.
                for relay in relays {
                    endpoint.insert_relay(relay.clone(), Arc::new(config_of(relay))).await;
                }
                search_at = Instant::now() + RELAY_SEARCH_INTERVAL;
            }
        }
    }
}

fn why_not(homes: &[RelayStatus]) -> String {
    let last = homes.iter().find_map(RelayStatus::last_error);
    last.map_or_else(|| "none of its relays answers".to_owned(), |error| format!("{error:#}"))
}
