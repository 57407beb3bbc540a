//! Why clients' commands do not travel through `fred`: its known failures, kept.
//!
//! Each of these is expected to fail the day `fred` mends it. Then `docs/decisions/0001-upstream-client.md` is due again.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::config::{Config, ServerConfig};
use fred::types::{CustomCommand, RespVersion, Value};
use nearside_tests::RedisServer;

/// A reply from a server on this machine takes a fraction of it.
const LONG_ENOUGH: Duration = Duration::from_secs(2);

async fn connect(redis: &RedisServer, version: RespVersion) -> Client {
    let config =
        Config { server: ServerConfig::new_centralized("127.0.0.1", redis.port()), version, ..Config::default() };
    let client = Client::new(config, None, None, None);
    client.init().await.unwrap();
    client
}

async fn custom(client: &Client, name: &'static str, args: &[&str]) -> Option<Result<Value, fred::error::Error>> {
    let command = CustomCommand::new_static(name, None, false);
    let args = args.iter().map(ToString::to_string).collect::<Vec<_>>();
    tokio::time::timeout(LONG_ENOUGH, client.custom(command, args)).await.ok()
}

#[tokio::test]
async fn fred_takes_a_list_for_a_published_message_and_never_answers() {
    let redis = RedisServer::start();
    let client = connect(&redis, RespVersion::RESP2).await;
    custom(&client, "RPUSH", &["l", "message", "a", "b"]).await.unwrap().unwrap();
    let plain = custom(&client, "LRANGE", &["l", "1", "2"]).await;
    assert!(plain.is_some_and(|reply| reply.is_ok()), "an ordinary list is answered");
    assert!(
        custom(&client, "LRANGE", &["l", "0", "-1"]).await.is_none(),
        "mended: LRANGE of `message a b` is answered"
    );
}

#[tokio::test]
async fn fred_gives_replies_to_the_wrong_caller_after_that() {
    let redis = RedisServer::start();
    let client = connect(&redis, RespVersion::RESP2).await;
    custom(&client, "RPUSH", &["l", "message", "a", "b"]).await.unwrap().unwrap();
    assert!(custom(&client, "LRANGE", &["l", "0", "-1"]).await.is_none());
    let echoed = custom(&client, "ECHO", &["mine"]).await.and_then(Result::ok).and_then(|value| value.as_string());
    assert_ne!(echoed.as_deref(), Some("mine"), "mended: the connection is in step again");
}

#[tokio::test]
async fn fred_cannot_read_the_command_table_in_resp3() {
    let redis = RedisServer::start();
    let client = connect(&redis, RespVersion::RESP3).await;
    let reply = custom(&client, "COMMAND", &[]).await;
    assert!(!matches!(reply, Some(Ok(_))), "mended: COMMAND is answered in RESP3");
}
