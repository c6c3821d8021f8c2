"""The commands: those that train or use a model, and those with a file of their own here."""

#: Commands that train or use a model; their options come from classes (sparselit.cli.experiment.experiment).
EXPERIMENT = {
    "fit": "train the experiment of a YAML file",
    "validate": "measure a checkpoint on the selection split",
    "test": "measure a checkpoint on the report split",
    "predict": "show what a checkpoint answers",
    "discover": "find the circuit of a checkpoint",
}
#: Commands with a parser of their own: each is a module of this package that has ``run(argv)``.
COMMAND_MODULES = {
    "new": "begin a task of your own: its file, a test and a YAML",
    "tasks": "list the tasks that can be trained on",
    "configs": "list the experiments that come with sparselit",
    "models": "list the trained models that come with sparselit",
    "sweep": "run an experiment at many settings, resumably, several at once",
    "frontier": "show capability against circuit size over the runs of a sweep",
    "runs": "list runs with their accuracy, density and circuit size",
    "convert": "turn a checkpoint of OpenAI's circuit_sparsity into ours, or back",
    "density": "show the share of non-zero weights of each tensor of a checkpoint",
    "show": "show a circuit: a table here and a picture in a file",
    "view": "write a circuit, two, or a run's as one HTML page to look at",
    "export": "write a circuit as a file that another tool reads",
    "verify": "recompute every claim of a circuit from its files",
    "hypotheses": "test a circuit: as the model? better than chance? minimal?",
    "stability": "find a circuit again and again: which edges come back?",
    "story": "say what the nodes of a circuit read, write and react to",
    "intervene": "scale, ablate or patch parts of a model: what changes?",
    "diagnose": "trace a model's errors to the weights and nodes behind them",
    "repair": "mend a model's errors by an edit of its circuit's weights",
    "edit": "show, apply, undo, check, compose and compare edits",
    "attack": "look for prompts on which a circuit, and its model, is deceived",
    "audit": "account for a model's answer to a prompt, from its circuits",
    "diff": "say what two circuits share and what differs",
    "union": "say what all circuits of a model explain together",
    "history": "show which edges were born and died during a run",
}
