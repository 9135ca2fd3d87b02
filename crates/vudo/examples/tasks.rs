//! Two devices edit the same task apart and then sync over QUIC.

use std::time::Duration;

use vudo::p2p::{Config, Node};

vudo::include_gen!("examples/tasks.dol");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (laptop, phone) = (vudo::open_in_memory()?, vudo::open_in_memory()?);
    let on_laptop = Task::create(&laptop, "milk")?;
    on_laptop.set_title("Buy milk")?;
    on_laptop.add_votes(1)?;
    // The phone does not know of it yet: two creations of one key are one document.
    let on_phone = Task::create(&phone, "milk")?;
    on_phone.set_done(true)?;
    on_phone.add_votes(2)?;

    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let config = Config::loopback();
        let server = Node::spawn(&laptop, config.clone()).await?;
        let ticket = server.share(laptop.namespace())?;
        let client = Node::spawn(&phone, config).await?;
        let link = client.connect(&ticket).await?;
        link.wait_until_synced(Duration::from_secs(5)).await?;
        client.shutdown().await;
        server.shutdown().await;
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;

    for task in [&on_laptop, &on_phone] {
        println!("{}: done {:?}, {} votes", task.title()?, task.done()?, task.votes()?);
        assert_eq!((task.title()?.as_str(), task.done()?), ("Buy milk", Some(true)));
        assert_eq!(task.votes()?, 3);
    }
    Ok(())
}
