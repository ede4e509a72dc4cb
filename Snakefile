# The graph of the course: data inspection -> pretraining per task -> fine-tuning per (init, labels, subset, seed) ->
# results. Which parts of the course it makes is in the configuration (`course.chapters`). Every rule runs one chapter by papermill; a part is done when the file its chapter writes last is there.
#
#   make course SCALE=smoke            # writes .course/config.json into the run folder and starts this file
#   by hand, with R=runs/phantom/smoke:
#   snakemake --directory $R --configfile $R/.course/config.json --rerun-triggers mtime params input --cores 4
#   ... --workflow-profile profiles/slurm --jobs 20     # on Slurm, in place of --cores: docs/cluster.md
#
# On Slurm by one command: python -m course run --executor slurm --jobs 20 --partition gpu
# Retries are the profile's alone: a rule's own would be obeyed by the driver and again inside the Slurm job.
#
# Paths are relative to the run folder. A part runs again when its file is missing, when an input was made anew, or
# when one of its params changed: parameters of the chapter, numbers of the scale it uses, code in the notebook.
#
# A chapter may train several tasks. Snakemake deletes the outputs of a job before it runs and when it fails;
# `ssl_utils.experiments.runs.begin` puts the metrics.json of a finished run back, so no task is trained twice for that.
import hashlib
import json
import shlex
import sys
from collections import Counter
from pathlib import Path

from course.chapters import FINETUNING, FIRST, LAST, OWN, part_of, tasks_of
from ssl_utils.pretext import TASKS

NOTEBOOKS = Path(config["notebooks"])
SETTINGS = config["settings"]  # the numbers of the scale
PARTS = config.get("parts", [1])
CHOSEN = tasks_of(PARTS)  # pretext tasks
PYTHON = shlex.quote(sys.executable)
# Two chapters at a time on two cores, four on eight. On a cluster one core each, or what the profile sets: a job must
# not take its share of the node for its own, and find other threads there than it was submitted with.
THREADS = 1 if workflow.remote_exec else max(1, (workflow.resource_settings.cores or 1) // 4)
DAY = 24 * 60
MINUTES = {"smoke": 15, "laptop": 90, "workstation": 2 * DAY}.get(config["scale"], 7 * DAY)  # limit of one chapter
RUN = (
    "OMP_NUM_THREADS={threads} exec {PYTHON} -m course.start course run-chapter {NOTEBOOKS:q}/{params.chapter}.ipynb"
    " {log.notebook:q} --parameters {params.parameters:q} --writes {output[0]:q} --minutes {resources.runtime}"
    " --events .course/events.jsonl"
)


COMMAND = (
    "OMP_NUM_THREADS={threads} exec {PYTHON} -m course.start course run-command {params.name:q} {log:q}"
    " {params.words:q} --writes {output[0]:q} --minutes {resources.runtime} --events .course/events.jsonl"
)


def code(chapter):
    """Fingerprint of the code cells: saving a notebook in JupyterLab, or correcting its text, changes nothing."""
    cells = json.loads((NOTEBOOKS / f"{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]
    source = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(source).encode()).hexdigest()[:12]


def settings(*unused):
    """The numbers that a part depends on; how many label subsets and labels there are concerns the graph, not its parts."""
    unused = ("name", "num_labeled", "subsets", "seeds", *unused)
    numbers = {key: value for key, value in SETTINGS.items() if not key.startswith(unused)}
    return json.dumps(numbers | {"cases": config.get("cases"), "datalist": config.get("datalist")}, sort_keys=True)


def parameters(**own):
    common = {"scale": config["scale"], "dataset": config["dataset"], "seed": 0}
    if config.get("data"):
        common["data"] = config["data"]
    return json.dumps(common | own)


VARIANT = "[^/]+__[^/]+"  # a run with options; studies make them (Snakefile.studies)


wildcard_constraints:
    init="(?:(?!__)[^/])+", num_labeled=r"\d+", subset=r"\d+", seed=r"\d+", part=r"\d+",


def finetunings(parts):
    """metrics.json of every fine-tuning that these parts make."""
    return expand(
        "finetune/{init}/n{num_labeled}/subset{subset}_seed{seed}/metrics.json",
        init=("random", *tasks_of(parts)), num_labeled=config["num_labeled"],
        subset=range(SETTINGS["subsets"]), seed=range(SETTINGS["seeds"]),
    )


FINETUNINGS = finetunings(PARTS)
CHAPTERS = [f"chapters/{chapter}/done.json" for chapter in (*FIRST, *OWN, *LAST) if part_of(chapter) in PARTS]
TABLES = [f"results_part{part}.md" for part in PARTS if part > 1 and tasks_of([part])]


rule all:
    input: CHAPTERS, TABLES, expand("pretrain/{task}/metrics.json", task=CHOSEN), FINETUNINGS  # all, not the last


rule start_here:
    output: "chapters/00_start_here/done.json"
    log: notebook="chapters/00_start_here/notebook.ipynb"
    params: chapter="00_start_here", code=code("00_start_here"), parameters=parameters()
    threads: THREADS
    resources: runtime=MINUTES, mem_mb=2000
    shell: RUN


rule data_inspection:
    input: ancient("chapters/00_start_here/done.json")
    output: "chapters/01_data_inspection/done.json"
    log: notebook="chapters/01_data_inspection/notebook.ipynb"
    params:
        chapter="01_data_inspection", code=code("01_data_inspection"), parameters=parameters(),
        settings=settings("pretrain_", "finetune_"),
    threads: THREADS
    resources: runtime=MINUTES, mem_mb=2000
    shell: RUN


TASKS_OF = Counter(entry.chapter for entry in TASKS.values())
for CHAPTER in TASKS_OF:  # of the registry: a rule under its own name

    rule:
        name: CHAPTER[3:]
        input:
            inspected=ancient("chapters/01_data_inspection/done.json"),
            # a later part compares with the runs of part I
            before=[f"pretrain/{task}/metrics.json" for task in tasks_of([1]) if part_of(CHAPTER) > 1],
        output: [f"pretrain/{task}/metrics.json" for task, entry in TASKS.items() if entry.chapter == CHAPTER]
        log: notebook=f"chapters/{CHAPTER}/notebook.ipynb"
        params:
            chapter=CHAPTER, code=code(CHAPTER), parameters=parameters(),
            settings=settings("finetune_", "overlap", "max_test"),
        threads: THREADS
        priority: 10  # others wait for it
        resources: runtime=MINUTES, mem_mb=4000, gpu=1
        shell: RUN + "".join(f" --writes {{output[{n}]:q}}" for n in range(1, TASKS_OF[CHAPTER]))  # of each task


rule unetr_finetuning:
    input:
        inspected=ancient("chapters/01_data_inspection/done.json"),
        encoder=lambda w: [] if w.init == "random" else f"pretrain/{w.init}/metrics.json",
    output: "finetune/{init}/n{num_labeled}/subset{subset}_seed{seed}/metrics.json"
    log: notebook="finetune/{init}/n{num_labeled}/subset{subset}_seed{seed}/notebook.ipynb"
    params:
        chapter=FINETUNING, code=code(FINETUNING),
        settings=settings("pretrain_", "max_unlabeled"),
        parameters=lambda w: parameters(
            init=w.init, num_labeled=int(w.num_labeled), subset=int(w.subset), seed=int(w.seed)
        ),
    threads: THREADS
    resources: runtime=MINUTES, mem_mb=4000, gpu=1
    shell: RUN


for CHAPTER in OWN:

    rule:
        name: CHAPTER[3:]
        input: ancient("chapters/01_data_inspection/done.json")
        output: f"chapters/{CHAPTER}/done.json"
        log: notebook=f"chapters/{CHAPTER}/notebook.ipynb"
        params: chapter=CHAPTER, code=code(CHAPTER), parameters=parameters(), settings=settings()
        threads: THREADS
        priority: 5  # one of the longest
        resources: runtime=MINUTES, mem_mb=4000, gpu=1
        shell: RUN


for CHAPTER in LAST:

    rule:
        name: CHAPTER[3:]
        input: finetunings(LAST[CHAPTER])
        output: f"chapters/{CHAPTER}/done.json"
        log: notebook=f"chapters/{CHAPTER}/notebook.ipynb"
        params: chapter=CHAPTER, code=code(CHAPTER), parameters=parameters()
        threads: THREADS
        resources: runtime=MINUTES, mem_mb=2000
        shell: RUN


rule table:  # of a later part: its rows beside those of part I
    input: lambda w: finetunings(sorted({1, int(w.part)}))
    output: "results_part{part}.md"
    log: ".course/results_part{part}.txt"
    params:
        name=lambda w: f"table of part {w.part}",
        words=lambda w: json.dumps(["course.records", "table", ".", w.part]),
    threads: THREADS
    resources: runtime=MINUTES, mem_mb=2000
    shell: COMMAND
