//! fred with its default settings.
//!
//! Of one server only: what it does with a cluster's nodes the cluster clients of other languages show as well.

use std::collections::HashMap;
use std::time::Duration;

use fred::prelude::*;
use fred::types::streams::XReadResponse;
use nearside_clients_rust::{PATIENCE, RELEASE, serves_clients_of_one_server, url};
use tokio::time::timeout;

async fn connect() -> Client {
    let client = Builder::from_config(Config::from_url(&url()).unwrap()).build().unwrap();
    client.init().await.unwrap();
    client
}

/// Runs a test with keys of its own.
async fn run<F: Future<Output = ()>>(test: &str, body: impl FnOnce(String) -> F) {
    if serves_clients_of_one_server() {
        timeout(PATIENCE, body(format!("{{fred:{test}}}"))).await.expect("it does not hang");
    }
}

#[tokio::test]
async fn client_strings() {
    run("strings", |key| async move {
        let client = connect().await;
        let big = vec![b'x'; 8 << 20];
        let () = client.set(&key, big.as_slice(), None, None, false).await.unwrap();
        for _ in 0..2 {
            assert!(client.get::<Vec<u8>, _>(&key).await.unwrap() == big);
        }
        let fields = HashMap::from([("f".to_owned(), "v".to_owned())]);
        let () = client.hset(format!("{key}h"), fields.clone()).await.unwrap();
        assert_eq!(client.hgetall::<HashMap<String, String>, _>(format!("{key}h")).await.unwrap(), fields);
        let error = client.lpush::<i64, _, _>(&key, 1).await.unwrap_err();
        assert!(error.details().starts_with("WRONGTYPE"), "{error}");
        client.quit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn client_streams() {
    run("streams", |key| async move {
        let (client, consumer) = (connect().await, connect().await);
        let () = client.xgroup_create(&key, "group", "$", true).await.unwrap();
        let consumed = tokio::spawn({
            let key = key.clone();
            async move {
                let mut seen = Vec::new();
                while seen.len() < 20 {
                    let reply: XReadResponse<String, String, String, i64> =
                        consumer.xreadgroup_map("group", "waits", None, Some(20_000), false, &key, ">").await.unwrap();
                    for (id, fields) in &reply[&key] {
                        assert_eq!(consumer.xack::<i64, _, _, _>(&key, "group", id.as_str()).await.unwrap(), 1);
                        seen.push(fields["n"]);
                    }
                }
                seen
            }
        });
        for number in 0..20 {
            let _: String = client.xadd(&key, false, None, "*", ("n", number)).await.unwrap();
        }
        assert_eq!(consumed.await.unwrap(), (0..20).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn client_transactions() {
    run("transactions", |key| async move {
        let client = connect().await;
        let block = client.multi();
        let () = block.set(&key, "v", None, None, false).await.unwrap();
        let () = block.get(&key).await.unwrap();
        let () = block.incr_by(format!("{key}n"), 5).await.unwrap();
        let replies: (String, String, i64) = block.exec(true).await.unwrap();
        assert_eq!(replies, ("OK".to_owned(), "v".to_owned(), 5));
    })
    .await;
}

#[tokio::test]
async fn client_scripts() {
    run("scripts", |key| async move {
        let client = connect().await;
        let script = format!("-- {key}\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])");
        let digest = fred::util::sha1_hash(&script);
        let error = client.evalsha::<i64, _, _, _>(&digest, vec![key.clone()], 5).await.unwrap_err();
        assert!(error.details().starts_with("NOSCRIPT"), "{error}");
        assert_eq!(client.eval::<i64, _, _, _>(&script, vec![key.clone()], 5).await.unwrap(), 5);
        assert_eq!(client.evalsha::<i64, _, _, _>(&digest, vec![key.clone()], 5).await.unwrap(), 10);
    })
    .await;
}

#[tokio::test]
async fn client_blocking() {
    run("blocking", |key| async move {
        let (client, consumer) = (connect().await, connect().await);
        // What Redis answers with null is an error to fred.
        let error = client.blpop::<(String, String), _>(format!("{key}nosuch"), 0.05).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Timeout);
        let queue = key.clone();
        let consumed = tokio::spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < 300 {
                let (_, item): (String, i64) = consumer.blpop(&queue, 20.0).await.unwrap();
                seen.push(item);
            }
            seen
        });
        for number in 0..300 {
            let _: i64 = client.rpush(&key, number).await.unwrap();
        }
        assert_eq!(consumed.await.unwrap(), (0..300).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn client_pubsub() {
    run("pubsub", |key| async move {
        let (client, subscriber) = (connect().await, connect().await);
        let mut messages = subscriber.message_rx();
        let () = subscriber.subscribe(&key).await.unwrap();
        // fred does not wait for the server to confirm that.
        while client.pubsub_numsub::<HashMap<String, i64>, _>(&key).await.unwrap()[&key] == 0 {
            tokio::task::yield_now().await;
        }
        for number in 0..100 {
            let _: i64 = client.publish(&key, number).await.unwrap();
            // At once: fred keeps few for a slow reader.
            assert_eq!(messages.recv().await.unwrap().value.convert::<i64>().unwrap(), number);
        }
    })
    .await;
}

#[tokio::test]
async fn client_locks() {
    run("locks", |key| async move {
        let total = format!("{key}n");
        let tasks = (0..6).map(|task| {
            let (lock, total) = (format!("{key}lock"), total.clone());
            tokio::spawn(async move {
                let client = connect().await;
                for turn in 0..10 {
                    let token = format!("{task}:{turn}");
                    let take = || {
                        client.set::<Option<String>, _, _>(
                            &lock,
                            &token,
                            Some(Expiration::EX(30)),
                            Some(SetOptions::NX),
                            false,
                        )
                    };
                    while take().await.unwrap().is_none() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    // Not atomic by itself.
                    let value: Option<i64> = client.get(&total).await.unwrap();
                    let () = client.set(&total, value.unwrap_or(0) + 1, None, None, false).await.unwrap();
                    assert_eq!(client.eval::<i64, _, _, _>(RELEASE, vec![lock.clone()], token).await.unwrap(), 1);
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert_eq!(connect().await.get::<i64, _>(&total).await.unwrap(), 60);
    })
    .await;
}
