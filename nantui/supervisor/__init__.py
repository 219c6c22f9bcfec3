"""Processes: start a training, watch it, stop it, and prove that nothing of it is left.

In reading order: __main__, supervisor, ports, handlers, launch, attempt_watch, stacks, foreign,
directories, stop, outcome, recovery, helper_process, client, status, state, gpu_admission, gpu_marks,
run_spec, config, host_checks, notify/, queue/, hosts/.
"""
