//! One line that says why a run waits, or why it ended.

use super::parse::JobState;
use super::standing::{JobRow, Standing, Verdict};
use isoflop_runtime::status::State;

/// What Slurm's words for pending jobs mean: the beginning of the word, and a sentence.
const REASONS: [(&str, &str); 26] = [
    ("Priority", "jobs of higher priority are before it"),
    ("Resources", "it is next, and waits until what it asks for is free"),
    ("JobArrayTaskLimit", "as many of its array run as `max_running` or the chain lets"),
    ("DependencyNeverSatisfied", "what it depends on can never happen any more; cancel it"),
    ("Dependency", "it waits for another job"),
    ("JobHeldUser", "you hold it; `isoflop retry` releases it"),
    (
        "JobHeldAdmin",
        "it is held by an administrator, or by Slurm after its start failed; `isoflop retry` tries to release it",
    ),
    ("JobHoldMaxRequeue", "Slurm put it back too often and holds it; `isoflop retry` tries to release it"),
    ("launch failed", "it could not be started and is held; `isoflop retry` releases it"),
    ("BeginTime", "its time to begin has not come; after a requeue that takes some minutes"),
    ("QOSMax", "a limit of its QOS for each user is reached; it starts when others of yours end"),
    ("QOSGrp", "a limit of its QOS for all together is reached"),
    ("QOS", "its QOS does not let it start now"),
    ("AssocMax", "a limit of your association is reached; it starts when others of yours end"),
    ("AssocGrp", "a limit of your account for all together is reached; it may be a budget that is spent"),
    ("Assoc", "your association does not let it start now"),
    ("MaxCpuPer", "a limit of CPUs for each user or account is reached"),
    ("PartitionTimeLimit", "it asks for more time than its partition gives; lower `time_limit`"),
    ("PartitionNodeLimit", "it asks for more nodes than its partition gives, or nodes are drained"),
    ("PartitionDown", "its partition is down"),
    ("PartitionInactive", "its partition takes no jobs now"),
    ("ReqNodeNotAvail", "nodes that it needs are down, drained or reserved"),
    ("BadConstraints", "no node has what it asks for; look at `constraint`, `mem` and `cpus_per_task`"),
    ("Licenses", "it waits for a licence"),
    ("Reservation", "it waits for its reservation"),
    ("NodeDown", "a node that it needs is down"),
];

/// Why a job is pending, in a sentence that ends with Slurm's own word.
fn pending(reason: &str) -> String {
    let plain = reason.replace('_', " ");
    match REASONS.iter().find(|(word, _)| plain.starts_with(word)) {
        Some((_, sentence)) => format!("{sentence} ({reason})"),
        None if reason.is_empty() || reason == "None" => "Slurm has not looked at it yet".into(),
        None => format!("Slurm says {reason}"),
    }
}

/// The line for one run. `said` is the last line of what its newest job printed.
pub fn explain(standing: &Standing, said: Option<&str>) -> String {
    let row = &standing.row;
    let at = format!("step {} of {}", row.step, row.steps);
    let reason = row.reason.as_deref();
    let job = standing.job.as_ref();
    let id = job.map_or("its job", |j| &j.id);
    let sentence = match standing.verdict {
        Verdict::Done if row.state == State::Diverged => {
            format!(
                "diverged: {}; starting it again changes nothing",
                reason.unwrap_or("its loss was too high")
            )
        }
        Verdict::Done if row.state == State::Checked => {
            format!("was checked: {}", reason.unwrap_or("its plan holds"))
        }
        Verdict::Done => {
            let loss = row.validation_loss.or(row.train_loss);
            format!("finished{}", loss.map_or(String::new(), |l| format!(" with loss {l:.4}")))
        }
        Verdict::New => "was never submitted; `isoflop submit` does".into(),
        Verdict::Cancelled => format!("was cancelled at {at}; `isoflop retry` goes on with it"),
        Verdict::Live => live(job, id, &at),
        Verdict::Continues { cause } => {
            format!(
                "stands at {at}: job {id} {}; the next `isoflop submit` goes on with it",
                cause.sentence()
            )
        }
        Verdict::GivenUp { cause } => {
            let why = reason.filter(|_| row.state == State::Failed).or(said);
            let why = why.map_or(String::new(), |w| format!(" ({w})"));
            format!("stands at {at}: job {id} {}{why}; `isoflop retry` tries again", cause.sentence())
        }
    };
    format!("{} {sentence}", row.id)
}

fn live(job: Option<&JobRow>, id: &str, at: &str) -> String {
    let Some(job) = job else { return "has a job".into() };
    let start = job.start.as_ref().map_or(String::new(), |s| format!("; expected to start at {s}"));
    match job.state {
        Some(JobState::Running) => format!("runs as job {id} on {}, {at}", job.nodes),
        Some(JobState::Completing) => format!("is ending as job {id} on {}, {at}", job.nodes),
        Some(JobState::Held) => format!("is held as job {id}: {}", pending(&job.reason)),
        _ => format!("waits as job {id}: {}{start}", pending(&job.reason)),
    }
}
