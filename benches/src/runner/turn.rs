//! One contestant's part of one round.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use hdrhistogram::Histogram;

use crate::cpu;
use crate::figures::Figure::*;
use crate::figures::Turn;
use crate::load::idle::Idle;
use crate::load::tape::KEY_LEN;
use crate::load::{Load, LoadError, Outcome, Protocol, Schedule, Tape, preload};
use crate::runner::Settings;
use crate::runner::scene::{ROUND_TRIP, Scene, Seat};
use crate::scenarios::{Measure, Point};
use crate::stage::relay::Relay;
use crate::stage::sockets::connections_to;
use crate::stage::{Kind, Server, Upstream};

/// Until a connection counts as idle and gives its buffers back, and until an allocator has given back what it does not
/// need. Nearside looks every second; Redis once a second at connections that have asked nothing for 2 s, and every 5 s
/// at how much of its reply buffer each has used (clientsCronResizeQueryBuffer and clientsCronResizeOutputBuffer, server.c).
const SETTLE: Duration = Duration::from_secs(6);

/// What part of a turn comes before it, unmeasured: connections and buffers find their size.
const WARM_UP: u32 = 4;

impl Scene {
    /// The turn of contestant number `index`, from batch `begin` of the tape on; with the latencies of a load.
    pub(super) fn turn(
        &mut self,
        index: usize,
        point: &Point,
        tape: &Arc<Tape>,
        begin: usize,
        rate: Option<f64>,
        settings: &Settings,
    ) -> anyhow::Result<(Turn, Option<Histogram<u64>>)> {
        let measure = self.scenario().measure;
        if measure == Measure::Load {
            let (turn, latency) = self.load(&self.seats[index], point, tape, begin, rate, settings)?;
            return Ok((turn, Some(latency)));
        }
        let contestant = self.seats[index].contestant;
        let server = self.start(contestant, &self.addresses(&self.seats[index]), settings)?;
        let turn = match measure {
            Measure::Load => unreachable!("it was done above"),
            Measure::Start => started(&server)?,
            Measure::IdleConnections => idle_connections(&server, point)?,
            Measure::Items => items(&server, contestant.kind, point)?,
        };
        Ok((turn, None))
    }

    fn load(
        &self,
        seat: &Seat,
        point: &Point,
        tape: &Arc<Tape>,
        begin: usize,
        rate: Option<f64>,
        settings: &Settings,
    ) -> anyhow::Result<(Turn, Histogram<u64>)> {
        let (address, server) = self.target(seat);
        let behind = self.behind(seat);
        let mut idle = match point.idle {
            0 => None,
            count => {
                let idle = Idle::connect(address, count).context("opening idle connections")?;
                thread::sleep(SETTLE);
                Some(idle)
            }
        };
        let mut load = Load::connect(address, point.connections, Protocol::Resp2, tape)?.further_on(begin);
        if let Some(lifetime) = point.lifetime {
            load = load.with_lifetime(lifetime);
        }
        run(&mut load, point, rate, settings.turn / WARM_UP, settings).context("warming up")?;
        let relay = self.relay_to(seat);
        let core = settings.cores.measured;
        let before = Sample::take(server, behind, relay, core)?;
        let outcome = run(&mut load, point, rate, settings.turn, settings)?;
        let spent = Sample::take(server, behind, relay, core)?.since(&before)?;
        if let Some(idle) = &mut idle {
            idle.ping().context("asking the idle connections again")?;
        }
        let mut turn = figures(&spent, &outcome);
        if seat.server.is_some() {
            let part = |time: Duration| time.as_secs_f64() / outcome.elapsed.as_secs_f64();
            turn.insert(CoreBusy, part(spent.cpu));
            turn.insert(OthersBusy, part(spent.core.saturating_sub(spent.cpu)));
        }
        turn.insert(ResidentMb, server.resident()? as f64 / 1e6);
        if let Some(rate) = rate {
            turn.insert(Offered, rate);
            turn.extend(outcome.late_us(0.99).map(|late_us| (LateUs, late_us)));
        }
        if seat.contestant.kind != Kind::Redis {
            let per_command = |total: Duration| total.as_secs_f64() * 1e6 / outcome.commands as f64;
            turn.insert(UpstreamCpuUs, per_command(spent.upstream_cpu));
            turn.insert(UpstreamCommands, spent.upstream_commands / outcome.commands as f64);
            if seat.contestant.upstream == Upstream::Distant && seat.contestant.kind.caches() {
                turn.insert(Hits, outcome.sooner_than(ROUND_TRIP));
            }
            let ports: Vec<u16> = self.addresses(seat).servers.iter().map(SocketAddr::port).collect();
            turn.insert(UpstreamConnections, connections_to(server.pid(), &ports)? as f64);
        }
        Ok((turn, outcome.latency))
    }
}

fn run(
    load: &mut Load,
    point: &Point,
    rate: Option<f64>,
    duration: Duration,
    settings: &Settings,
) -> Result<Outcome, LoadError> {
    let mut watch = |_, _| match settings.stopped.load(Ordering::Relaxed) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    match rate {
        Some(rate) => load.open(&Schedule::new(rate), point.depth, duration, &mut watch),
        None => load.closed(duration, &mut watch),
    }
}

/// What servers have done so far.
struct Sample {
    cpu: Duration,
    /// Of the core that the contestant is on, by whomever; in ticks of 10 ms.
    core: Duration,
    upstream_cpu: Duration,
    /// Of the relay that leads there; nothing without one.
    relay_cpu: Duration,
    upstream_commands: f64,
}

impl Sample {
    fn take(server: &Server, behind: &[Server], relay: Option<&Relay>, core: usize) -> anyhow::Result<Self> {
        let mut upstream_commands = 0.0;
        for server in behind {
            upstream_commands += server.info("total_commands_processed")?;
        }
        let upstream_cpu = behind.iter().map(Server::cpu).sum::<Result<_, _>>()?;
        let relay_cpu = relay.map(Relay::cpu).transpose()?.unwrap_or_default();
        Ok(Self { cpu: server.cpu()?, core: cpu::of_core(core)?, upstream_cpu, relay_cpu, upstream_commands })
    }

    /// What was done since then. Fails if time went backwards, which a thread does that has ended: its time counts no more.
    fn since(&self, before: &Self) -> anyhow::Result<Self> {
        let spent = |now: Duration, then| now.checked_sub(then).context("a thread of a server has ended meanwhile");
        Ok(Self {
            cpu: spent(self.cpu, before.cpu)?,
            core: self.core.saturating_sub(before.core),
            upstream_cpu: spent(self.upstream_cpu, before.upstream_cpu)?,
            relay_cpu: spent(self.relay_cpu, before.relay_cpu)?,
            upstream_commands: self.upstream_commands - before.upstream_commands,
        })
    }
}

fn figures(spent: &Sample, outcome: &Outcome) -> Turn {
    let beside = spent.upstream_cpu + spent.relay_cpu;
    Turn::from([
        (CpuUs, spent.cpu.as_secs_f64() * 1e6 / outcome.commands as f64),
        (Throughput, outcome.throughput()),
        (P50Us, outcome.latency_us(0.5)),
        (P99Us, outcome.latency_us(0.99)),
        (P999Us, outcome.latency_us(0.999)),
        (LoadBusy, outcome.driver_busy() + beside.as_secs_f64() / outcome.elapsed.as_secs_f64()),
    ])
}

fn started(server: &Server) -> anyhow::Result<Turn> {
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1000.0;
    Ok(Turn::from([
        (ListeningMs, milliseconds(server.started().listening)),
        (AnsweringMs, milliseconds(server.started().answering)),
        (ResidentMb, server.resident()? as f64 / 1e6),
        (ProgramMb, server.program_len()? as f64 / 1e6),
    ]))
}

fn idle_connections(server: &Server, point: &Point) -> anyhow::Result<Turn> {
    let before = server.resident()?;
    let mut idle = Idle::connect(server.address(), point.connections)?;
    thread::sleep(SETTLE);
    let after = server.resident()?;
    idle.ping().context("asking them again")?;
    Ok(Turn::from([
        (Connections, idle.count() as f64),
        (BytesPerConnection, after.saturating_sub(before) as f64 / idle.count() as f64),
        (ResidentMb, after as f64 / 1e6),
    ]))
}

fn items(server: &Server, kind: Kind, point: &Point) -> anyhow::Result<Turn> {
    let before = server.resident()?;
    match kind.caches() {
        true => preload::read_keys(server.address(), point.keys, point.value_len)?,
        false => preload::set_keys(server.address(), point.keys, point.value_len)?,
    }
    thread::sleep(SETTLE);
    let after = server.resident()?;
    let of_each = after.saturating_sub(before) as f64 / f64::from(point.keys);
    Ok(Turn::from([
        (BytesPerItem, of_each - KEY_LEN as f64 - point.value_len as f64),
        (ResidentMb, after as f64 / 1e6),
    ]))
}
