//! Which process of a group this is, from the variables that launchers set.

use std::str::FromStr;

use super::Place;
use crate::{Error, Result};

/// What starts the processes of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// Whichever left its variables; none if there are none.
    Auto,
    /// Nothing: each process trains by itself.
    Alone,
    /// `torchrun`, or `udass-raw train --processes`.
    Torchrun,
    /// `mpirun` or `mpiexec` of Open MPI, MPICH or Intel MPI.
    Mpi,
    /// `srun`.
    Slurm,
}

impl FromStr for Launcher {
    type Err = Error;

    fn from_str(name: &str) -> Result<Launcher> {
        Ok(match name {
            "auto" => Launcher::Auto,
            "none" => Launcher::Alone,
            "torchrun" => Launcher::Torchrun,
            "mpi" => Launcher::Mpi,
            "slurm" => Launcher::Slurm,
            other => return Err(Error::config(format!("parallel.launcher: unknown `{other}`"))),
        })
    }
}

/// A process as its launcher started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launched {
    /// The place in the group.
    pub place: Place,
    /// What started it; never [`Launcher::Auto`].
    pub by: Launcher,
}

/// Names of the variables with rank, size, local rank and local size.
type Names = [&'static str; 4];

const TORCHRUN: Names = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"];
const OPEN_MPI: Names = [
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
];
const HYDRA: Names = ["PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"];
/// A batch script without `srun` has SLURM_NTASKS too, but is alone: only a step has this size.
const SLURM: [&str; 3] = ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"];
const SLURM_LOCAL_SIZES: &str = "SLURM_STEP_TASKS_PER_NODE";
const SLURM_NODE: &str = "SLURM_NODEID";

impl Launched {
    /// Reads this process's environment.
    ///
    /// # Errors
    /// [`Error::Config`] if `launcher` is one that did not start this process, or if its variables do
    /// not fit each other.
    pub fn of_environment(launcher: Launcher) -> Result<Launched> {
        Self::of(launcher, &|name| std::env::var(name).ok())
    }

    /// Reads the variables that `get` returns. Of several launchers, one inside the other, the
    /// innermost counts.
    fn of(launcher: Launcher, get: &dyn Fn(&str) -> Option<String>) -> Result<Launched> {
        let torchrun = || named(&TORCHRUN, get);
        let mpi = || match named(&OPEN_MPI, get)? {
            None => named(&HYDRA, get),
            place => Ok(place),
        };
        let slurm = || of_slurm(get);
        let (place, by) = match launcher {
            Launcher::Alone => (Some(Place::ALONE), Launcher::Alone),
            Launcher::Torchrun => (torchrun()?, Launcher::Torchrun),
            Launcher::Mpi => (mpi()?, Launcher::Mpi),
            Launcher::Slurm => (slurm()?, Launcher::Slurm),
            Launcher::Auto => match (torchrun()?, mpi()?, slurm()?) {
                (Some(place), ..) => (Some(place), Launcher::Torchrun),
                (_, Some(place), _) => (Some(place), Launcher::Mpi),
                (.., Some(place)) => (Some(place), Launcher::Slurm),
                _ => (Some(Place::ALONE), Launcher::Alone),
            },
        };
        let place = place.ok_or_else(|| {
            let missing = match by {
                Launcher::Torchrun => TORCHRUN[0],
                Launcher::Slurm => SLURM[1],
                _ => "OMPI_COMM_WORLD_RANK or PMI_RANK",
            };
            let problem = format!(
                "parallel.launcher names what did not start this process: {missing} is not set"
            );
            Error::config(problem)
        })?;
        Ok(Launched { place, by })
    }
}

/// Returns the place in the variables of a launcher, if the first two are set.
fn named(names: &Names, get: &dyn Fn(&str) -> Option<String>) -> Result<Option<Place>> {
    let [rank, size, local_rank, local_size] = *names;
    let (Some(rank), Some(size)) = (number(rank, get)?, number(size, get)?) else {
        return Ok(None);
    };
    let place = Place {
        rank,
        size,
        // A launcher that does not tell has all processes on one machine.
        local_rank: number(local_rank, get)?.unwrap_or(rank),
        local_size: number(local_size, get)?.unwrap_or(size),
    };
    checked(place, names[0]).map(Some)
}

fn of_slurm(get: &dyn Fn(&str) -> Option<String>) -> Result<Option<Place>> {
    let [rank, size, local_rank] = SLURM;
    let (Some(rank), Some(size)) = (number(rank, get)?, number(size, get)?) else {
        return Ok(None);
    };
    let node = number(SLURM_NODE, get)?.unwrap_or(0);
    let sizes = get(SLURM_LOCAL_SIZES).unwrap_or_default();
    let place = Place {
        rank,
        size,
        local_rank: number(local_rank, get)?.unwrap_or(rank),
        local_size: tasks_of_node(&sizes, node).unwrap_or(size),
    };
    checked(place, SLURM[0]).map(Some)
}

/// Returns the tasks of a node from a list such as `4(x2),3`.
fn tasks_of_node(list: &str, node: usize) -> Option<usize> {
    let mut left = node;
    for part in list.split(',') {
        let (tasks, nodes) = match part.split_once("(x") {
            Some((tasks, nodes)) => (tasks, nodes.strip_suffix(')')?.parse().ok()?),
            None => (part, 1),
        };
        if left < nodes {
            return tasks.parse().ok();
        }
        left -= nodes;
    }
    None
}

fn number(name: &str, get: &dyn Fn(&str) -> Option<String>) -> Result<Option<usize>> {
    let Some(text) = get(name) else { return Ok(None) };
    let number = text.trim().parse();
    number.map(Some).map_err(|_| Error::config(format!("{name}: expected a number, got `{text}`")))
}

fn checked(place: Place, variable: &str) -> Result<Place> {
    let Place { rank, size, local_rank, local_size } = place;
    if rank < size && local_rank < local_size && local_size <= size {
        return Ok(place);
    }
    Err(Error::config(format!(
        "{variable} and the variables with it do not fit each other: rank {rank} of {size}, on its \
         machine {local_rank} of {local_size}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launched(launcher: Launcher, variables: &[(&str, &str)]) -> Result<Launched> {
        Launched::of(launcher, &|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
        })
    }

    fn place(rank: usize, size: usize, local_rank: usize, local_size: usize) -> Place {
        Place { rank, size, local_rank, local_size }
    }

    const OMPI: [(&str, &str); 4] = [
        ("OMPI_COMM_WORLD_RANK", "3"),
        ("OMPI_COMM_WORLD_SIZE", "4"),
        ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
        ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
    ];

    #[test]
    fn each_launcher_is_recognized_by_its_variables() {
        let auto = |variables: &[_]| launched(Launcher::Auto, variables).unwrap();
        assert_eq!(auto(&[]), Launched { place: Place::ALONE, by: Launcher::Alone });
        assert_eq!(auto(&OMPI), Launched { place: place(3, 4, 1, 2), by: Launcher::Mpi });
        let hydra = [("PMI_RANK", "1"), ("PMI_SIZE", "2")];
        assert_eq!(auto(&hydra), Launched { place: place(1, 2, 1, 2), by: Launcher::Mpi });
        let torchrun =
            [("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "4")];
        let expected = Launched { place: place(5, 8, 1, 4), by: Launcher::Torchrun };
        assert_eq!(auto(&torchrun), expected);
        // torchrun under mpirun, one for each machine.
        assert_eq!(auto(&[&torchrun[..], &OMPI].concat()), expected);
        let slurm = [
            ("SLURM_PROCID", "9"),
            ("SLURM_STEP_NUM_TASKS", "11"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_NODEID", "2"),
            ("SLURM_STEP_TASKS_PER_NODE", "4(x2),3"),
        ];
        assert_eq!(auto(&slurm), Launched { place: place(9, 11, 1, 3), by: Launcher::Slurm });
    }

    #[test]
    fn a_batch_script_without_srun_is_alone() {
        let script = [("SLURM_NTASKS", "4"), ("SLURM_PROCID", "0"), ("SLURM_LOCALID", "0")];
        assert_eq!(launched(Launcher::Auto, &script).unwrap().place, Place::ALONE);
        let told = launched(Launcher::Slurm, &script).unwrap_err().to_string();
        assert!(told.contains("SLURM_STEP_NUM_TASKS is not set"), "{told}");
    }

    #[test]
    fn a_launcher_can_be_ignored_and_variables_must_fit() {
        assert_eq!(launched(Launcher::Alone, &OMPI).unwrap().place, Place::ALONE);
        let told = launched(Launcher::Auto, &[("RANK", "2"), ("WORLD_SIZE", "2")]).unwrap_err();
        assert!(told.to_string().contains("rank 2 of 2"), "{told}");
        let told = launched(Launcher::Auto, &[("RANK", "x"), ("WORLD_SIZE", "2")]).unwrap_err();
        assert_eq!(told.to_string(), "RANK: expected a number, got `x`");
    }
}
