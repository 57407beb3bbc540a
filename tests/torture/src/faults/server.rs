//! What happens to a server of its own.

use nearside_tests::{RedisServer, Relay};

use super::{
    BETWEEN, BRIEFLY, FILLERS, Fault, SPELL, delay_for_a_while, give_memory, in_silence, kill_loaders,
    overflow_tracking, shrink_memory, widen_tracking,
};
use crate::client::Shared;
use crate::history::History;

pub(super) fn happen(fault: Fault, server: &mut RedisServer, relay: &Relay, shared: &Shared, history: &mut History) {
    let all = shared.keys.all(|_| true);
    match fault {
        Fault::Kill => {
            server.kill();
            in_silence(shared, all, history, || std::thread::sleep(SPELL));
            server.start_again();
        }
        Fault::StopForLong | Fault::StopBriefly => {
            server.stop();
            // Longer than the proxies wait for an answer, or shorter than that.
            let during = if fault == Fault::StopForLong { 2 * SPELL } else { BRIEFLY / 2 };
            in_silence(shared, all, history, || std::thread::sleep(during));
            server.resume();
        }
        Fault::HeldBack => {
            relay.stall();
            in_silence(shared, all, history, || std::thread::sleep(SPELL));
            relay.resume();
        }
        Fault::KilledLoaders => {
            for _ in 0..8 {
                kill_loaders(&mut server.client());
                std::thread::sleep(BETWEEN);
            }
        }
        Fault::CutConnections => {
            for _ in 0..8 {
                relay.cut();
                std::thread::sleep(BETWEEN);
            }
        }
        Fault::Delay => delay_for_a_while(std::iter::once(relay), Relay::delay_tracked),
        Fault::SlowLink => delay_for_a_while(std::iter::once(relay), Relay::delay_proxies),
        Fault::TrackingOverflow => {
            overflow_tracking(&mut server.client());
            std::thread::sleep(SPELL);
            widen_tracking(&mut server.client());
        }
        Fault::Eviction => {
            let mut client = server.client();
            shrink_memory(&mut client);
            for filler in 0..FILLERS {
                client.command(&["SET", &format!("filler:{filler}"), &"#".repeat(1024)]);
            }
            give_memory(&mut client);
        }
        _ => unreachable!("it happens to no server of its own"),
    }
}
