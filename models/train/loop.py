"""A training that can be stopped and resumed.

Schedule: warm-up, then a constant learning rate for as long as one likes, then a linear descent to zero
(`anneal`). A cosine over a fixed time would have to know the end at the start; a run that is interrupted,
and goes on another day, does not. Everything counts steps, never minutes.
"""
import json
import os
import signal
import time

import numpy as np
import torch


class Run:
    """One training: network, averaged weights, optimiser, schedule, log, checkpoints."""

    def __init__(self, net, out, options):
        self.device = 'cuda' if torch.cuda.is_available() else 'cpu'
        torch.set_num_threads(options.threads)
        os.makedirs(out, exist_ok=True)
        self.net = net.to(self.device, memory_format=torch.channels_last)
        self.out, self.o, self.step, self.seconds = out, options, 0, 0.0
        many = [p for p in net.parameters() if p.ndim > 1]
        few = [p for p in net.parameters() if p.ndim <= 1]
        self.opt = torch.optim.AdamW([{'params': many, 'weight_decay': options.decay}, {'params': few, 'weight_decay': 0}],
                                     lr=options.lr, betas=(0.9, 0.99))
        self.average = {k: v.detach().clone() for k, v in net.state_dict().items()}
        self.last = f'{out}/last.pt'
        if os.path.exists(self.last):
            state = torch.load(self.last, map_location=self.device, weights_only=True)
            net.load_state_dict(state['net'])
            self.opt.load_state_dict(state['opt'])
            self.average, self.step, self.seconds = state['average'], state['step'], state['seconds']
            print(f'goes on from step {self.step}, {self.seconds / 60:.0f} minutes', flush=True)
        self.first = self.step  # of the descent, when this is one
        self.stopped = False
        for s in (signal.SIGTERM, signal.SIGINT):
            signal.signal(s, lambda *_: setattr(self, 'stopped', True))
        self.rng = np.random.default_rng((options.seed, self.step))
        torch.manual_seed(options.seed + self.step)
        self.log, self.sums, self.began, self.saved = open(f'{out}/log.jsonl', 'a'), [], time.time(), time.time()

    def progress(self):
        """0..1 of the run that was asked for."""
        return (self.step - self.first) / max(1, self.o.steps - (0 if self.o.anneal else self.first))

    def rate(self):
        warm = min(1.0, (self.step + 1) / 300)
        return self.o.lr * warm * (max(0.0, 1 - self.progress()) if self.o.anneal else 1.0)

    def going(self):
        return not self.stopped and self.step - (self.first if self.o.anneal else 0) < self.o.steps

    def update(self, loss, parts):
        """One step of the optimiser and of the average. `parts` are the named losses, for the log."""
        for g in self.opt.param_groups:
            g['lr'] = self.rate()
        self.opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.opt.step()
        self.step += 1
        keep = min(self.o.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            now = self.net.state_dict()
            names = [k for k, v in now.items() if v.dtype.is_floating_point]
            torch._foreach_lerp_([self.average[k] for k in names], [now[k] for k in names], 1 - keep)
        self.sums.append([float(v) for v in parts.values()])
        if self.step % 200 == 0:
            self.report(list(parts))
        if time.time() - self.saved > 300:
            self.save()

    def report(self, names):
        seconds = self.seconds + time.time() - self.began
        rate = 200 * self.o.batch / max(1e-9, seconds - getattr(self, 'reported', self.seconds))
        self.reported = seconds
        means = dict(zip(names, np.round(np.mean(self.sums, 0), 5).tolist()))
        self.sums = []
        row = dict(step=self.step, minutes=round(seconds / 60, 1), rate=round(rate), lr=float(f'{self.rate():.3g}'), **means)
        print(row, flush=True)
        self.log.write(json.dumps(row) + '\n')
        self.log.flush()

    def save(self):
        """A descent never overwrites what a longer run would go on from."""
        self.saved = time.time()
        state = dict(net=self.net.state_dict(), opt=self.opt.state_dict(), average=self.average, step=self.step,
                     seconds=self.seconds + time.time() - self.began)
        if not self.o.anneal:
            torch.save(state, self.last + '.part')
            os.replace(self.last + '.part', self.last)
        torch.save(self.average, f'{self.out}/{"annealed" if self.o.anneal else "average"}.pt')

    def finish(self):
        self.save()
        print('stopped' if self.stopped else 'done', 'at step', self.step, flush=True)
