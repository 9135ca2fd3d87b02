//! Opaque messages over QUIC on the loopback interface.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use tokio::time::timeout;
use vudo_p2p::limits::{OPAQUE_MESSAGE_BYTES_MAX, STRANGER_MESSAGE_BYTES_MAX};
use vudo_p2p::{Messenger, Outgoing};

const LIMIT: Duration = Duration::from_secs(20);

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn id(key: u8) -> [u8; 32] {
    SigningKey::from_bytes(&[key; 32]).verifying_key().to_bytes()
}

async fn messenger(key: u8, port: u16, known: &[u8]) -> Messenger {
    Messenger::bind([key; 32], loopback(port), known.iter().map(|key| id(*key))).await.unwrap()
}

fn message(length: usize) -> Arc<[u8]> {
    (0..length).map(|place| place as u8).collect()
}

async fn received(messenger: &mut Messenger) -> vudo_p2p::Delivery {
    timeout(LIMIT, messenger.receive()).await.expect("a message arrives")
}

/// Sends until a message of this length arrives, for messages may be lost.
async fn exchange(outgoing: &Outgoing, to: &mut Messenger, length: usize) -> vudo_p2p::Delivery {
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        outgoing.send(message(length));
        if let Ok(delivery) = timeout(Duration::from_millis(300), to.receive()).await
            && delivery.message.len() == length
        {
            return delivery;
        }
    }
    panic!("nothing arrives");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_arrive_whole_with_their_sender_and_are_answered() {
    let mut server = messenger(1, 0, &[2]).await;
    let mut client = messenger(2, 0, &[1]).await;
    let outgoing = client.link(id(1), &server.addresses()).unwrap();
    for length in [0, 1, 70_000, OPAQUE_MESSAGE_BYTES_MAX] {
        assert!(outgoing.send(message(length)));
        let delivery = received(&mut server).await;
        assert_eq!((delivery.from, delivery.message.len()), (id(2), length));
        assert!(delivery.message == *message(length));
        delivery.answers.send(message(length / 2));
        let answer = received(&mut client).await;
        assert_eq!((answer.from, answer.message.len()), (id(1), length / 2));
    }
    client.close().await;
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_comes_back_is_dialled_again() {
    let server = messenger(3, 0, &[]).await;
    let addresses = server.addresses();
    let mut client = messenger(4, 0, &[]).await;
    let outgoing = client.link(id(3), &addresses).unwrap();
    server.close().await;
    outgoing.send(message(10));
    // The system lets go of the port some time after the messenger has closed.
    let start = Instant::now();
    let mut server = loop {
        match Messenger::bind([3; 32], addresses[0], []).await {
            Ok(server) => break server,
            Err(error) => assert!(start.elapsed() < LIMIT, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(exchange(&outgoing, &mut server, 20).await.message.len(), 20);
    client.close().await;
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_that_sends_too_much_is_cut_off_and_others_are_served() {
    let mut server = messenger(5, 0, &[7]).await;
    let addresses = server.addresses();
    let mut stranger = messenger(6, 0, &[]).await;
    let mut known = messenger(7, 0, &[]).await;
    let from_stranger = stranger.link(id(5), &addresses).unwrap();
    let from_known = known.link(id(5), &addresses).unwrap();
    from_stranger.send(message(STRANGER_MESSAGE_BYTES_MAX + 1));
    assert!(from_known.send(message(STRANGER_MESSAGE_BYTES_MAX + 1)));
    let delivery = received(&mut server).await;
    assert_eq!((delivery.from, delivery.message.len()), (id(7), STRANGER_MESSAGE_BYTES_MAX + 1));
    // The stranger may come again and behave.
    let delivery = exchange(&from_stranger, &mut server, 30).await;
    assert_eq!((delivery.from, delivery.message.len()), (id(6), 30));
    for messenger in [stranger, known, server] {
        messenger.close().await;
    }
}

/// A queue that nobody empties takes a bounded number of messages, and then loses them.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_does_not_take_is_lost_and_not_kept() {
    let mut client = messenger(8, 0, &[]).await;
    let outgoing = client.link(id(9), &[loopback(1)]).unwrap();
    let large = message(OPAQUE_MESSAGE_BYTES_MAX);
    let taken = (0..100).filter(|_| outgoing.send(large.clone())).count();
    assert!((1..=8).contains(&taken), "{taken} of 100 were taken");
    client.close().await;
}
