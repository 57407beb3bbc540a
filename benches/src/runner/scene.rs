//! The contestants of a scenario and what stands behind them, all of it up from the start: who is idle takes next to no CPU.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;

use crate::load::preload;
use crate::results::ContestantResult;
use crate::runner::Settings;
use crate::scenarios::{Measure, Point, Scenario};
use crate::stage::cluster::Cluster;
use crate::stage::crowd::Crowd;
use crate::stage::relay::Relay;
use crate::stage::{Addresses, Cache, Contestant, Kind, Server, Upstream};

/// How far away a distant upstream is, there and back.
pub(super) const ROUND_TRIP: Duration = Duration::from_millis(1);

pub(super) struct Scene {
    scenario: &'static Scenario,
    pub(super) seats: Vec<Seat>,
    relay: Option<Relay>,
    /// After the contestants, which end first so.
    upstream: Server,
    cluster: Option<Cluster>,
    /// How contestants were started that are not there any more, too.
    pub(super) commands: Vec<String>,
}

/// One contestant.
pub(super) struct Seat {
    pub(super) contestant: Contestant,
    /// Why it does not take part.
    pub(super) absent: Option<String>,
    /// None if it is absent, is started anew for each turn, or is the distant upstream itself.
    pub(super) server: Option<Server>,
    /// The Redis behind it, if that is its alone.
    own_upstream: Option<Server>,
    /// Who else is connected to it.
    _crowd: Option<Crowd>,
}

impl Seat {
    fn empty(contestant: Contestant, absent: Option<String>) -> Self {
        Self { contestant, absent, server: None, own_upstream: None, _crowd: None }
    }

    fn prepare(&self, point: &Point, sets: bool, fill: bool) -> anyhow::Result<()> {
        let Some(server) = &self.server else { return Ok(()) };
        if let Some(upstream) = &self.own_upstream {
            preload::set_keys(upstream.address(), point.keys, point.value_len).context("setting the keys")?;
        }
        if sets {
            preload::set_keys(server.address(), point.keys, point.value_len).context("setting the keys")?;
        }
        if fill && self.contestant.kind.caches() {
            preload::read_keys(server.address(), point.keys, point.value_len).context("filling the cache")?;
        }
        Ok(())
    }
}

impl Scene {
    pub(super) fn set(scenario: &'static Scenario, settings: &Settings) -> anyhow::Result<Self> {
        let has = |upstream| scenario.contestants.iter().any(|contestant| contestant.upstream == upstream);
        let (program, core) = (settings.programs.redis_server(), settings.cores.load);
        let upstream = start_upstream(settings)?;
        let relay = match has(Upstream::Distant) {
            true => Some(Relay::to(upstream.address(), ROUND_TRIP, core)?),
            false => None,
        };
        let cluster = if has(Upstream::Cluster) { Some(Cluster::start(program, core)?) } else { None };
        let mut scene = Self { scenario, seats: Vec::new(), relay, upstream, cluster, commands: Vec::new() };
        for contestant in scenario.contestants {
            let seat = match scenario.measure == Measure::Load {
                true => scene.seat(*contestant, settings),
                false => Seat::empty(*contestant, None),
            };
            scene.seats.push(seat);
        }
        Ok(scene)
    }

    pub(super) fn scenario(&self) -> &'static Scenario {
        self.scenario
    }

    /// Started, or absent.
    fn seat(&mut self, contestant: Contestant, settings: &Settings) -> Seat {
        let mut seat = Seat::empty(contestant, None);
        if !self.is_upstream_itself(contestant)
            && let Err(error) = self.start_all(&mut seat, settings)
        {
            seat.absent = Some(format!("{error:#}"));
        }
        seat
    }

    /// Starts a contestant, with what stands behind it alone and those who shall be there besides.
    fn start_all(&mut self, seat: &mut Seat, settings: &Settings) -> anyhow::Result<()> {
        if seat.contestant.upstream == Upstream::Own {
            seat.own_upstream = Some(start_upstream(settings).context("its upstream")?);
        }
        let server = seat.server.insert(self.start(seat.contestant, &self.addresses(seat), settings)?);
        if seat.contestant.kind == Kind::Crowded {
            seat._crowd = Some(Crowd::gather(server.address(), self.upstream.address()).context("its crowd")?);
        }
        Ok(())
    }

    /// Starts a contestant before `upstream`.
    pub(super) fn start(
        &mut self,
        contestant: Contestant,
        upstream: &Addresses,
        settings: &Settings,
    ) -> anyhow::Result<Server> {
        let cache = Some(Cache { size: self.scenario.cache, max_age: self.scenario.max_age });
        let started = settings.programs.start(contestant.kind, settings.cores.measured, upstream, cache);
        let server = started.map_err(anyhow::Error::msg)??;
        let command = format!("{}: {}", contestant.name(), server.command());
        if !self.commands.iter().any(|known| known.starts_with(&format!("{}: ", contestant.name()))) {
            self.commands.push(command);
        }
        Ok(server)
    }

    /// A distant Redis is reached through the relay, which leads to the one that others have behind them.
    fn is_upstream_itself(&self, contestant: Contestant) -> bool {
        contestant.kind == Kind::Redis && contestant.upstream == Upstream::Distant
    }

    /// Where a contestant finds its upstream.
    pub(super) fn addresses(&self, seat: &Seat) -> Addresses {
        let servers = match self.relay_to(seat) {
            Some(relay) => vec![relay.address()],
            None => self.behind(seat).iter().map(Server::address).collect(),
        };
        Addresses { servers, is_cluster: seat.contestant.upstream == Upstream::Cluster }
    }

    /// The servers that do the work behind a contestant.
    pub(super) fn behind<'s>(&'s self, seat: &'s Seat) -> &'s [Server] {
        match seat.contestant.upstream {
            Upstream::One | Upstream::Distant => std::slice::from_ref(&self.upstream),
            Upstream::Own => seat.own_upstream.as_slice(),
            Upstream::Cluster => self.cluster.as_ref().expect("it was started").nodes(),
        }
    }

    /// What holds everything on its way between a contestant and a distant upstream.
    pub(super) fn relay_to(&self, seat: &Seat) -> Option<&Relay> {
        self.relay.as_ref().filter(|_| seat.contestant.upstream == Upstream::Distant)
    }

    /// Where clients of a contestant connect, and the process that is measured.
    pub(super) fn target<'s>(&'s self, seat: &'s Seat) -> (SocketAddr, &'s Server) {
        match &seat.server {
            Some(server) => (server.address(), server),
            None => (self.addresses(seat).servers[0], &self.upstream),
        }
    }

    /// Sets the keys of `point` wherever they are asked for, and fills caches if the scenario has them filled. A contestant
    /// that fails at it takes no part any more.
    pub(super) fn prepare(&mut self, point: &Point) -> anyhow::Result<()> {
        preload::set_keys(self.upstream.address(), point.keys, point.value_len).context("setting the keys")?;
        let fill = self.scenario.fill;
        let mut cluster_is_set = false;
        for seat in self.seats.iter_mut().filter(|seat| seat.absent.is_none()) {
            let is_in_cluster = seat.contestant.upstream == Upstream::Cluster;
            let sets = seat.contestant.kind == Kind::Redis || (is_in_cluster && !cluster_is_set);
            match seat.prepare(point, sets, fill) {
                Ok(()) => cluster_is_set |= is_in_cluster,
                Err(error) => seat.absent = Some(format!("{error:#}")),
            }
        }
        Ok(())
    }

    /// Those who take part in `point`, in order, with nothing measured yet.
    pub(super) fn names(&self, point: &Point) -> Vec<ContestantResult> {
        let result = |seat: &Seat| {
            let sits_out = point.without.contains(&seat.contestant.kind).then(|| "not measured here".to_owned());
            ContestantResult {
                contestant: seat.contestant.name(),
                turns: Vec::new(),
                failure: seat.absent.clone().or(sits_out),
                latency: None,
            }
        };
        self.seats.iter().map(result).collect()
    }

    /// How everything was started.
    pub(super) fn commands(&self) -> Vec<String> {
        let mut commands = self.commands.clone();
        let own = self.seats.iter().find_map(|seat| seat.own_upstream.as_ref());
        commands.push(match own {
            Some(own) => format!("upstream of each: {}", own.command()),
            None => format!("upstream: {}", self.upstream.command()),
        });
        commands.extend(
            self.cluster.iter().map(|cluster| format!("each node of the cluster: {}", cluster.nodes()[0].command())),
        );
        commands
    }
}

/// A Redis on the load's core, to put behind contestants.
fn start_upstream(settings: &Settings) -> anyhow::Result<Server> {
    let nothing = Addresses { servers: Vec::new(), is_cluster: false };
    settings.programs.start(Kind::Redis, settings.cores.load, &nothing, None).map_err(anyhow::Error::msg)?
}
