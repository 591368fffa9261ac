//! From a machine's launch to its running agent, within one deadline. The log shows each step's seconds.

use super::Ec2;
use super::failure::{AwsError, ErrorClass, call};
use super::group::SSH_PORT;
use super::machines::{Ec2Instance, MachineState, UNKNOWN_AFTER_LAUNCH, describe};
use super::plan::public_address;
use super::tags::HOST_KEY_TAG;
use super::takeover::authorize_ingress;
use super::user_data::GUARD_FOLDER;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};
use trainspot_base::error::{Error, Kind, Result, chain};
use trainspot_base::log::lines::Lines;
use trainspot_base::log::progress::{in_words, while_waiting};
use trainspot_base::mutex::lock;
use trainspot_compute::aws::SshAddress;
use trainspot_compute::link::ssh::{SshLink, SshTarget};
use trainspot_compute::{LaunchRequest, Machine};
use trainspot_protocol::EndMode;

/// The first wait between two looks at a machine that is starting, in EC2's description; each further wait is
/// longer by 30 %.
const FIRST_POLL_WAIT: Duration = Duration::from_secs(1);
const LONGEST_POLL_WAIT: Duration = Duration::from_secs(5);
/// How often a running machine is checked for its end, while SSH does not answer yet.
const ALIVE_POLL_INTERVAL: Duration = Duration::from_secs(5);
/// How long SSH may be silent before the pipe looks its own address up again: a sixth of `BOOT_TIMEOUT`, at
/// most this.
const LONGEST_SSH_SILENCE: Duration = Duration::from_mins(1);
const SSH_SILENCES_A_BOOT: u32 = 6;
/// How much earlier than the whole boot the SSH client gives up: its error says best what it met.
const SSH_REPORT_MARGIN: Duration = Duration::from_secs(2);
/// How many of the console's last lines a failed boot shows; an image may print thousands.
const CONSOLE_LINES: usize = 20;
/// How long to wait for EC2 to send the console.
const CONSOLE_DEADLINE: Duration = Duration::from_secs(10);
/// The metadata service of EC2, at the same address for every machine.
const METADATA_URL: &str = "http://169.254.169.254";

/// The hint for a machine that ends before it boots, with a code that only says that its disk is at fault.
const DISK_KEY_HINT: &str = "if the account encrypts its disks with a key of its own, grant that key to the role of spot machines: \
    see docs/aws.md";

/// The steps of a boot, each with its start.
struct BootSteps {
    start: Instant,
    entered: Mutex<Vec<(&'static str, Instant)>>,
}

impl BootSteps {
    fn new() -> Self {
        Self { start: Instant::now(), entered: Mutex::default() }
    }

    fn begin(&self, step: &'static str) {
        let mut entered = lock(&self.entered);
        if entered.last().is_none_or(|(last, _)| *last != step) {
            entered.push((step, Instant::now()));
        }
    }

    /// The steps with their seconds, as in `pending 3.1, running 0.0, ssh 24.0, agent 6.1`.
    fn summary(&self, now: Instant) -> String {
        let entered = lock(&self.entered);
        let ends = entered.iter().skip(1).map(|(_, next)| *next).chain([now]);
        let steps = entered.iter().zip(ends);
        let summary = steps.map(|((step, from), to)| format!("{step} {:.1}", (to - *from).as_secs_f64()));
        summary.collect::<Vec<_>>().join(", ")
    }
}

impl Ec2 {
    /// See [`trainspot_compute::Compute::connect`].
    pub(super) async fn boot(&self, machine: &Machine, request: &LaunchRequest) -> Result<SshLink> {
        let (steps, boot_timeout) = (BootSteps::new(), self.aws.boot_timeout);
        let reaching = while_waiting("waiting for the machine", self.reach(machine, request, &steps));
        let reached = timeout(boot_timeout, reaching).await.unwrap_or_else(|_| {
            Err(Error::new(format!("it was not ready within {}", in_words(boot_timeout)))
                .hint("raise BOOT_TIMEOUT if the image or the startup script needs longer"))
        });
        let now = Instant::now();
        match reached {
            Ok(link) => {
                info!("booted in {:.1} s ({})", (now - steps.start).as_secs_f64(), steps.summary(now));
                Ok(link)
            }
            Err(error) => {
                let steps = steps.summary(now);
                Err(boot_error(machine, &steps, error, &self.console(machine).await))
            }
        }
    }

    async fn reach(&self, machine: &Machine, request: &LaunchRequest, steps: &BootSteps) -> Result<SshLink> {
        steps.begin("pending");
        let reaching = async {
            let instance = self.running(machine, steps).await?;
            tokio::select! {
                link = self.log_in(&instance, steps) => link,
                gone = self.until_gone(&instance) => Err(gone),
            }
        };
        let (link, packed) = tokio::try_join!(reaching, self.packed())?;
        steps.begin("agent");
        link.install(packed, &supervise(request)).await?;
        Ok(link)
    }

    /// Logs in, and runs the startup script. The script comes before the agent, as the grace for a silent
    /// pipe begins with the agent, and a script may take any time.
    async fn log_in(&self, instance: &Ec2Instance, steps: &BootSteps) -> Result<SshLink> {
        steps.begin("ssh");
        let link = if instance.tag(HOST_KEY_TAG) == Some(&self.host_key) {
            let left = self.aws.boot_timeout.saturating_sub(steps.start.elapsed() + SSH_REPORT_MARGIN);
            let ssh_target = self.ssh_target(instance, &self.host_key)?;
            tokio::select! {
                link = SshLink::open(ssh_target, left) => link?,
                never = self.follow_own_address(instance) => match never {},
            }
        } else {
            self.take_over(instance).await?
        };
        if let Some(script) = &self.aws.startup_script {
            steps.begin("startup script");
            run_once(&link, script).await?;
        }
        Ok(link)
    }

    /// Allows SSH from each address that the pipe turns out to have, as long as the machine does not answer:
    /// behind a NAT or a proxy with several addresses, SSH may come from another one than the public-address
    /// service was asked from. Never returns.
    async fn follow_own_address(&self, instance: &Ec2Instance) -> Infallible {
        let interval = LONGEST_SSH_SILENCE.min(self.aws.boot_timeout / SSH_SILENCES_A_BOOT);
        let planned = self.region_plan(&instance.region).map(|plan| &plan.network);
        let mut inbound = planned.map_or_else(Vec::new, |network| network.inbound.clone());
        // With SSH_CIDR, or with an address in the VPC, the public address does not matter.
        let is_own = self.aws.ssh_cidrs.is_empty() && planned.is_some_and(|network| !network.by_private);
        if !is_own || self.aws.security_group.is_some() {
            return std::future::pending().await;
        }
        loop {
            sleep(interval).await;
            let Ok(address) = public_address(&self.aws.public_ip_url).await else { continue };
            let range = ipnet::IpNet::from(address).to_string();
            if inbound.contains(&range) {
                continue;
            }
            warn!(
                "the machine does not answer, and this pipe's address is {address} now: it is let in as well"
            );
            match authorize_ingress(&self.clients, instance, std::slice::from_ref(&range)).await {
                Ok(()) => inbound.push(range),
                Err(error) => warn!("{}", chain(&error)),
            }
        }
    }

    /// Waits until the machine runs and has its addresses.
    async fn running(&self, machine: &Machine, steps: &BootSteps) -> Result<Ec2Instance> {
        let region = self.region_of(machine);
        let mut poll_wait = FIRST_POLL_WAIT;
        loop {
            let young = steps.start.elapsed() < UNKNOWN_AFTER_LAUNCH;
            match describe(&self.clients, region, &machine.id).await {
                // The machine boots all the same, and BOOT_TIMEOUT holds.
                Err(failure) if failure.class() == ErrorClass::Transient => {
                    debug!("cannot look at the machine: {failure}");
                }
                Err(failure) => return Err(failure.into()),
                Ok(None) if young => {}
                Ok(None) => return Err(Error::new("EC2 does not know it")),
                Ok(Some(instance)) => match instance.state {
                    MachineState::Pending => {}
                    MachineState::Running => {
                        steps.begin("running");
                        if !(self.addresses(&instance).is_empty() || young && self.lacks_public(&instance)) {
                            return Ok(instance);
                        }
                    }
                    _ => return Err(ended_error(&instance)),
                },
            }
            sleep(poll_wait).await;
            poll_wait = poll_wait.mul_f64(1.3).min(LONGEST_POLL_WAIT);
        }
    }

    /// Returns once the machine is ending, with the reason: SSH would only fall silent.
    async fn until_gone(&self, instance: &Ec2Instance) -> Error {
        loop {
            sleep(ALIVE_POLL_INTERVAL).await;
            match describe(&self.clients, &instance.region, &instance.id).await {
                Ok(Some(instance)) if !instance.is_alive() => return ended_error(&instance),
                Ok(_) => {}
                Err(failure) => debug!("cannot look at the machine: {failure}"),
            }
        }
    }

    pub(super) fn ssh_target(&self, instance: &Ec2Instance, host_key: &str) -> Result<SshTarget> {
        let image = || self.region_plan(&instance.region).map(|plan| plan.image.user.as_str());
        let user = instance.tag(super::tags::USER_TAG).or_else(image);
        let user = user.ok_or_else(|| Error::new("nobody knows who logs in there: it lacks its tag"))?;
        Ok(SshTarget {
            addresses: self.addresses(instance),
            port: SSH_PORT,
            user: user.to_owned(),
            host_key: host_key.to_owned(),
            client: self.client.clone(),
        })
    }

    /// The addresses to try by SSH. A server must show the machine's host key, so a wrong address does no
    /// harm.
    fn addresses(&self, instance: &Ec2Instance) -> Vec<IpAddr> {
        let outside = self.region_plan(&instance.region).is_some_and(|plan| !plan.network.by_private);
        let (public, private) = (instance.public, instance.private);
        let wanted = match self.aws.ssh_address {
            SshAddress::Public => [public, None],
            SshAddress::Private => [private, None],
            SshAddress::Auto if outside && public.is_some() => [public, None],
            SshAddress::Auto => [private, public],
        };
        wanted.into_iter().flatten().collect()
    }

    /// Whether a public address is still to come.
    fn lacks_public(&self, instance: &Ec2Instance) -> bool {
        instance.public.is_none()
            && self.region_plan(&instance.region).is_some_and(|plan| plan.network.public)
    }

    /// The last [`CONSOLE_LINES`] of the machine's console, if EC2 has them already.
    async fn console(&self, machine: &Machine) -> Vec<String> {
        let client = self.clients.ec2(self.region_of(machine));
        let ask = async |latest: bool| {
            call("ec2:GetConsoleOutput", "cannot read the console", || async {
                let request = client.get_console_output().instance_id(&machine.id).latest(latest);
                Ok::<_, AwsError>(request.send().await?)
            })
            .await
        };
        // The console as it is now, which only Nitro offers; otherwise the copy that EC2 kept when the
        // machine began or ended.
        let asked = async {
            match ask(true).await {
                Err(failure) if failure.class() == ErrorClass::Fatal => ask(false).await,
                asked => asked,
            }
        };
        match timeout(CONSOLE_DEADLINE, asked).await {
            Ok(Ok(answer)) => {
                let text = answer.output().and_then(|text| STANDARD.decode(text.trim()).ok());
                last_lines(&text.unwrap_or_default())
            }
            Ok(Err(failure)) => {
                debug!("{}", Error::from(failure).render());
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }
}

fn supervise(request: &LaunchRequest) -> [(&'static str, String); 4] {
    [
        ("--grace", request.orphan_grace.as_secs().to_string()),
        ("--ending", EndMode::PowerOff.as_str().to_owned()),
        ("--guard", GUARD_FOLDER.to_owned()),
        ("--metadata", METADATA_URL.to_owned()),
    ]
}

/// Runs the user's startup script as root, unless an earlier try of the step has done so.
async fn run_once(link: &SshLink, script: &str) -> Result<()> {
    info!("running the startup script");
    let mut screen = Lines::new(Instant::now());
    let mut show = |line: &str| info!("startup: {line}");
    let script = script_once(&after_cloud_init(script));
    let ran = link.run_as_root(&script, |line| {
        screen.feed(format!("{line}\n").as_bytes(), Instant::now(), &mut show);
    });
    ran.await.map_err(|error| {
        Error::new("the startup script failed").source(error).hint("mend STARTUP_SCRIPT; it runs as root")
    })
}

/// The startup script, made to run once: if a killed pipe's try of it still runs, that try is waited for.
/// Processes that the script leaves running do not hold the lock.
fn script_once(script: &str) -> String {
    format!(
        "mkdir -p {GUARD_FOLDER}; exec 9>{GUARD_FOLDER}/starting; flock 9\n[ ! -e {GUARD_FOLDER}/started ] || exit 0\n\
         (\n{script}\n) 9>&-\nstatus=$?; [ $status != 0 ] || touch {GUARD_FOLDER}/started; exit $status\n"
    )
}

/// The script, run after cloud-init: both may install packages, and only one of them can at a time.
fn after_cloud_init(script: &str) -> String {
    format!("cloud-init status --wait >/dev/null 2>&1 || true\n{script}")
}

fn ended_error(instance: &Ec2Instance) -> Error {
    let reason = instance.reason.clone().unwrap_or_else(|| format!("it is {:?}", instance.state));
    let by_key = ["Client.InternalError", "Client.InvalidKMSKey"].iter().any(|code| reason.starts_with(code));
    let error = Error::new(reason);
    if by_key { error.hint(DISK_KEY_HINT) } else { error }
}

fn last_lines(console: &[u8]) -> Vec<String> {
    let now = Instant::now();
    let mut lines = Lines::new(now);
    lines.feed(console, now, &mut |_: &str| ());
    lines.finish(now, &mut |_: &str| ());
    let mut last = lines.tail();
    last.drain(..last.len().saturating_sub(CONSOLE_LINES));
    last
}

fn boot_error(machine: &Machine, steps: &str, error: Error, console: &[String]) -> Error {
    let mut message = format!("cannot use the machine {} ({steps} s): {}", machine.id, chain(&error));
    if !console.is_empty() {
        message.push_str("\nThe end of its console:\n");
        message.push_str(&console.join("\n"));
    }
    Error::new(message).source(error).kind(Kind::Machine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_startup_script_runs_once_and_fails_with_its_own_code() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display().to_string();
        let run = |script: &str| {
            let text = script_once(script).replace(GUARD_FOLDER, &path);
            std::process::Command::new("sh").args(["-c", &text]).status().unwrap().code()
        };
        assert_eq!(run("set -e\nfalse\necho not reached"), Some(1));
        assert_eq!(run("exit 7"), Some(7));
        let count = format!("echo >>{path}/count\nsleep 0.3 &\nexit 0");
        let both = std::thread::scope(|scope| {
            [scope.spawn(|| run(&count)), scope.spawn(|| run(&count))].map(|run| run.join().unwrap())
        });
        assert_eq!((both, run(&count)), ([Some(0); 2], Some(0)));
        assert_eq!(std::fs::read(folder.path().join("count")).unwrap(), b"\n");
    }

    #[test]
    fn steps_add_up_to_the_whole() {
        let steps = BootSteps::new();
        for step in ["pending", "pending", "ssh"] {
            steps.begin(step);
        }
        let from = steps.entered.lock().unwrap()[1].1;
        let summary = steps.summary(from + Duration::from_millis(2340));
        assert!(summary.starts_with("pending 0.0, ssh 2.3"), "{summary}");
    }

    #[test]
    fn a_console_is_shown_plain_and_by_its_end() {
        let lines = (0..50).map(|line| format!("[  {line}.0] \x1b]0;t\x07\x00line {line}\r\n"));
        let text = lines.collect::<Vec<_>>().concat();
        let lines = last_lines(text.as_bytes());
        assert_eq!(lines.len(), CONSOLE_LINES);
        assert_eq!(lines[CONSOLE_LINES - 1], "[  49.0] line 49");
    }

    #[test]
    fn a_boot_that_failed_tells_why_once_then_the_console() {
        let machine = Machine {
            id: "i-1".to_owned(),
            description: String::new(),
            pool: None,
            spot: true,
            rate: None,
            age: Duration::ZERO,
        };
        let why = Error::new("cannot log in").source("refused").hint("check the group");
        let shown = boot_error(&machine, "ssh 3.0", why, &["panic".to_owned()]).render();
        assert_eq!(
            shown,
            "cannot use the machine i-1 (ssh 3.0 s): cannot log in: refused\n  The end of its console:\n  panic\nNext: check the group"
        );
    }
}
