"""One command for each stage."""

from adanat import stages
from adanat.commands.options import run_command

data = run_command(stages.prepare_data, lambda run: [run.stages.data])
train_tokenizer = run_command(stages.train_tokenizer, lambda run: [run.stages.tokenizer])
tokenize = run_command(stages.tokenize, lambda run: [run.stages.tokens])
train_generator = run_command(stages.train_generator, lambda run: [run.stages.generator])
search_schedule = run_command(stages.search_schedule, lambda run: [run.stages.schedule])
search_static = run_command(stages.search_static, lambda run: [run.stages.static_search])
train_policy = run_command(stages.train_policies, lambda run: list(run.stages.policies.values()))
search_more_steps = run_command(stages.search_more_steps, lambda run: [run.stages.more_steps])
evaluate = run_command(stages.evaluate, lambda run: [run.stages.evaluation])
