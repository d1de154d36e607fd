// The report's page: reads the runs' JSON and sets the sections. Every text of a run goes in as text, never
// as HTML.

const data = JSON.parse(document.getElementById('data').textContent);
const runs = data.runs;
const several = runs.length > 1;
const main = document.getElementById('main');
document.getElementById('subtitle').textContent =
    `${runs.map((run) => run.directory).join(', ')} \u00b7 ${data.created}`;

function section(title, ...children) {
  const id = newId();
  const element = html('section', {'aria-labelledby': id}, html('h2', {id}, title), ...children);
  document.getElementById('sections').append(html('a', {href: '#' + id}, title));
  main.append(element);
  return element;
}

/// The same curve of every run that has it.
function curves(name, label) {
  return runs.flatMap(
      (run, i) => run.series[name] ?
          [{label: several ? run.name : label, ...run.series[name], colour: colour(i), dash: dash(i)}] :
          []);
}

function lossCurves() {
  return runs.flatMap((run, i) => {
    const lines = [];
    if (run.series.lm_loss)
      lines.push(
          {label: several ? run.name : 'training', ...run.series.lm_loss, colour: colour(i), dash: dash(i)});
    if (run.validation.mean)
      lines.push({
        label: several ? run.name + ', validation' : 'validation, mean of domains',
        ...run.validation.mean,
        colour: colour(several ? i : 1),
        dash: several ? '4 3' : null,
        marks: true
      });
    return lines;
  });
}

// ---- what all runs are shown in together

function notes() {
  const rows =
      runs.flatMap((run) => run.notes.map((note) => html('li', {}, several ? `${run.name}: ${note}` : note)));
  if (rows.length > 0)
    main.append(html(
        'div', {class: 'notes', role: 'note'}, html('p', {}, 'Not everything of this run could be read.'),
        html('ul', {}, ...rows)));
}

function summary() {
  if (!several) {
    main.append(html(
        'dl', {class: 'figures'},
        ...runs[0].facts.map(
            ([name, value, unit]) =>
                html('div', {}, html('dt', {}, name), html('dd', {}, valueText(value, unit))))));
    return;
  }
  const names = [...new Set(runs.flatMap((run) => run.facts.map(([name]) => name)))];
  const fact = (run, name) => run.facts.find(([other]) => other === name);
  section(
      'Side by side',
      html(
          'div', {class: 'tables'},
          table(
              null, ['', ...runs.map((run) => run.name)],
              names.map(
                  (name) =>
                      [name,
                       ...runs.map(
                           (run) => fact(run, name) ? valueText(fact(run, name)[1], fact(run, name)[2]) :
                                                      '\u2013')])),
          validationTable()),
      html('h3', {}, 'Keys in which the recipes differ'),
      data.differences.length === 0 ?
          html('p', {class: 'quiet'}, 'None, apart from name and output.') :
          table(
              null, ['key', ...runs.map((run) => run.name)],
              data.differences.map(
                  (row) => [row.key, ...row.values.map((value) => value === '' ? '\u2013' : value)]),
              'words'));
}

/// The last validation loss of each domain and run.
function validationTable() {
  const domains = [...new Set(runs.flatMap((run) => run.domains))];
  if (domains.length === 0) return '';
  const last = (run, domain) => run.validation[domain]?.y.at(-1)?.toFixed(4) || '\u2013';
  return table(
      'Last validation loss in nats, by domain', ['domain', ...runs.map((run) => run.name)],
      domains.map((domain) => [domain, ...runs.map((run) => last(run, domain))]));
}

/// Those that have a chart of their own, and counts that say nothing as curves.
const shown = [
  'lm_loss', 'learning_rate', 'grad_norm', 'tokens_per_second', 'max_load_violation', 'load_balance_loss',
  'step_seconds', 'tokens', 'target_tokens'
];

function training() {
  section(
      'Training',
      html(
          'div', {class: 'charts'}, lineChart({title: 'Loss', unit: 'nats per token', series: lossCurves()}),
          lineChart(
              {title: 'Learning rate', series: curves('learning_rate', 'learning rate'), fromZero: true}),
          lineChart({
            title: 'Gradient norm',
            unit: 'before clipping, logarithmic',
            series: curves('grad_norm', 'norm'),
            logarithmic: true
          }),
          lineChart({
            title: 'Throughput',
            unit: 'tokens per second',
            series: curves('tokens_per_second', 'tokens per second'),
            fromZero: true
          }),
          lineChart({
            title: 'Largest load violation',
            unit: 'busiest expert / even share \u2212 1',
            series: curves('max_load_violation', 'violation'),
            fromZero: true
          }),
          lineChart({
            title: 'Load-balance loss',
            unit: '1 is uniform routing',
            series: curves('load_balance_loss', 'mean of layers')
          })),
      moreCurves());
}

function moreCurves() {
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.series)))]
                    .filter((name) => !shown.includes(name))
                    .sort();
  if (names.length === 0) return null;
  const grid = html('div', {class: 'charts'});
  const details = html(
      'details', {}, html('summary', {}, names.length === 1 ? '1 more curve' : `${names.length} more curves`),
      grid);
  details.addEventListener('toggle', () => {
    if (details.open && grid.children.length === 0)
      grid.append(...names.map(
          (name) => lineChart(
              {title: name.replaceAll('_', ' '), series: curves(name, name.replaceAll('_', ' '))})));
  });
  return details;
}

// ---- what one run is shown in

function byDomain(run) {
  const domains = run.domains.filter((domain) => domain !== 'mean');
  if (domains.length === 0) return html('p', {class: 'quiet'}, 'No evaluation was logged.');
  return html(
      'div', {class: 'charts'}, lineChart({
        title: 'Validation loss by domain',
        unit: 'nats per token',
        series: domains.map(
            (domain, i) =>
                ({label: domain, ...run.validation[domain], colour: colour(i), dash: dash(i), marks: true}))
      }),
      timeChart(run));
}

function timeChart(run) {
  if (!run.time) return null;
  return lineChart({
    title: 'Time by purpose',
    unit: 'seconds per step, rank 0',
    stacked: true,
    series:
        Object.entries(run.time.parts).map(([label, y], i) => ({label, x: run.time.x, y, colour: colour(i)}))
  });
}

/// Round steps, each with the stretch that it lies in.
function stepTicks(stretches, count) {
  return niceTicks(stretches[0][0], stretches.at(-1)[1] + 1e-6, count)
      .filter(Number.isInteger)
      .map((tick) => [stretches.findIndex(([, last]) => last >= tick), stepText(tick)])
      .filter(([column]) => column >= 0);
}

/// The scale's end: what all but one in a hundred cells stay below, in halves of the even share.
function scaleEnd(maps) {
  const all = maps.flat(2).sort((a, b) => a - b);
  const most = all.length === 0 ? 0 : all[Math.floor(0.99 * (all.length - 1))] / 1000;
  return Math.min(8, Math.max(2, Math.ceil(2 * most) / 2));
}

function experts(run) {
  const maps = run.experts;
  if (!maps || maps.blocks.length === 0 || maps.steps.length === 0)
    return [html('p', {class: 'quiet'}, 'There is nothing about experts.')];
  const names = [...Array(maps.experts).keys()];
  const high = scaleEnd(maps.loads.concat(maps.domain_loads || []));
  const overTime = heatMap({
    title: 'Load over time',
    rows: names,
    columns: maps.steps.map(([, last]) => grouped(last)),
    rowTitle: 'expert',
    columnTitle: 'step',
    high,
    ticks: (count) => stepTicks(maps.steps, Math.min(count, 8)),
    describe: (r, c, load) =>
        `Expert ${r}, steps ${maps.steps[c][0]} to ${maps.steps[c][1]}: ${load} times its even share`,
  });
  const overDomains = maps.domains ? heatMap({
    title: `Load by domain, evaluation after step ${grouped(maps.evaluation_step)}`,
    rows: maps.domains,
    columns: names,
    rowTitle: '',
    columnTitle: 'expert',
    high,
    describe: (r, c, load) => `Expert ${c} on ${maps.domains[r]}: ${load} times its even share`,
  }) :
                                     null;
  const show = (layer) => {
    const block = `block ${maps.blocks[layer]}`;
    const loads = maps.loads[layer];
    overTime.show(names.map((expert) => loads.map((stretch) => stretch[expert])), block);
    if (overDomains) overDomains.show(maps.domain_loads[layer], block);
  };
  const parts = [
    blockControls(maps.blocks, show),
    heatScale('no token', `${high} times the even share, or more (1 is even)`),
    html('div', {class: 'charts'}, overTime.figure, overDomains ? overDomains.figure : null), deadExperts(run)
  ];
  if (maps.specialisation) parts.push(...specialisation(maps));
  return parts;
}

function blockControls(blocks, show) {
  const id = newId();
  const slider = html('input', {type: 'range', id, min: 0, max: blocks.length - 1, value: 0, step: 1});
  const output = html('output', {for: id
  });
  const change = (layer) => {
    slider.value = Math.min(blocks.length - 1, Math.max(0, layer));
    output.textContent = `block ${blocks[slider.value]} of ${blocks[0]} to ${blocks.at(-1)}`;
    slider.setAttribute('aria-valuetext', output.textContent);
    show(Number(slider.value));
  };
  slider.addEventListener('input', () => change(Number(slider.value)));
  const button = (text, name, by) => {
    const element = html('button', {type: 'button', 'aria-label': name}, text);
    element.addEventListener('click', () => change(Number(slider.value) + by));
    return element;
  };
  change(0);
  return html(
      'div', {class: 'controls'}, html('label', {for: id
      }, 'Block'), button('\u2039', 'previous block', -1), slider, button('\u203a', 'next block', 1), output);
}

function deadExperts(run) {
  const dead = run.experts.dead;
  if (dead.length === 0)
    return html(
        'p', {},
        `Every expert of every block has had a token within the last ${
            grouped(run.dead_steps)} logged steps.`);
  return html(
      'details', {open: dead.length <= 20 ? '' : null},
      html(
          'summary', {},
          `${dead.length} experts without a token for at least ${
              grouped(run.dead_steps)} logged steps at the end`),
      table(
          null, ['block', 'expert', 'last token at step'],
          dead.map(
              (one) => [one.block, one.expert, one.last_step === 0 ? 'never' : grouped(one.last_step)])));
}

/// One line for each block.
function blockLines(maps, title, unit, steps, values) {
  return lineChart({
    title,
    unit,
    fromZero: true,
    series: values.map(
        (y, i) =>
            ({label: `block ${maps.blocks[i]}`, x: steps, y, colour: colour(i), dash: dash(i), marks: true}))
  });
}

/// A heat map of the domains, with a column for each block. Its colours go from the least value to the
/// largest.
function domainsByBlocks(maps, title, values, meaning) {
  const all = values.flat().filter((value) => value !== null).map((value) => value / 1000);
  if (all.length === 0) return null;
  const low = Math.floor(50 * Math.min(...all)) / 50,
        high = Math.max(low + 0.02, Math.ceil(50 * Math.max(...all)) / 50);
  const map = heatMap({
    title,
    rows: maps.domains,
    columns: maps.blocks,
    rowTitle: '',
    columnTitle: 'block',
    low,
    high,
    describe: (r, c, value) => `${maps.domains[r]} in block ${maps.blocks[c]}: ${value}${meaning}`,
  });
  map.show(values, `dark ${low.toFixed(2)}, bright ${high.toFixed(2)}`);
  return map.figure;
}

/// How sharply routers chose, over time; runs of earlier versions do not know.
function sharpness(maps) {
  const {steps, score_sums, entropies} = maps.sharpness || {};
  if (!steps) return [];
  return [
    blockLines(maps, 'Sum of chosen probabilities', 'mean of tokens and domains', steps, score_sums),
    blockLines(maps, 'Routing entropy', 'nats, mean of tokens and domains', steps, entropies),
  ];
}

function specialisation(maps) {
  const information = maps.information, even = Math.log(maps.experts).toFixed(4);
  const number = (value) => value === null ? '\u2013' : value.toFixed(4);
  const overlap = heatMap({
    title: 'Overlap of frequent experts',
    rows: maps.domains,
    columns: maps.domains,
    rowTitle: '',
    columnTitle: '',
    high: 1,
    describe: (r, c, value) => `${maps.domains[r]} and ${maps.domains[c]}: ${value}`,
  });
  return [
    html('h3', {}, 'Specialisation on domains'),
    html(
        'p', {class: 'quiet'},
        'Mutual information between domain and expert, 0 when all domains use the experts alike; the largest share of a ' +
            `domain's assignments that one expert receives, ${
                (1 / maps.experts).toFixed(4)} when even; the entropy of the use over all domains, ` +
            `${even} nats when even; the sum of the chosen experts' probabilities, and the entropy of all of a token's ` +
            `probabilities, ${
                even} nats when they are alike; and how many of the experts that have twice the even ` +
            'share or more in one domain have it in another too. All domains weigh alike.'),
    table(
        `After step ${grouped(maps.evaluation_step)}`,
        [
          'block', 'mutual information', 'largest share', 'load entropy', 'score sum', 'routing entropy',
          'overlap'
        ],
        maps.specialisation.map(
            (row) =>
                [row.block, number(row.mutual_information), number(row.largest_share),
                 number(row.load_entropy), number(row.score_sum), number(row.routing_entropy),
                 number(row.mean_overlap)])),
    html(
        'div', {class: 'charts'},
        blockLines(
            maps, 'Mutual information of domain and expert', 'nats', information.steps, information.blocks),
        ...sharpness(maps)),
    blockControls(maps.blocks, (layer) => overlap.show(maps.overlaps[layer], `block ${maps.blocks[layer]}`)),
    heatScale('none of them', 'all of them'),
    html(
        'div', {class: 'charts'}, overlap.figure,
        maps.domain_score_sums ?
            domainsByBlocks(maps, 'Sum of chosen probabilities, by domain', maps.domain_score_sums, '') :
            null,
        maps.domain_entropies ? domainsByBlocks(
                                    maps, 'Routing entropy over its largest, by domain',
                                    maps.domain_entropies, ` of ${even} nats`) :
                                null),
  ];
}

function plans(run) {
  return html(
      'div', {class: 'tables'},
      ...run.tables.map(
          (one) =>
              table(one.title, null, one.rows.map(([name, value, unit]) => [name, valueText(value, unit)]))));
}

function texts(run) {
  const parts = [];
  const warnings = (run.warnings ||
                    []).concat(run.more_warnings > 0 ? [`... and ${run.more_warnings} more in log.txt`] : []);
  parts.push(
      warnings.length === 0 ? html('p', {}, 'The log has no warnings.') :
                              html(
                                  'details', {open: warnings.length < 12 ? '' : null},
                                  html('summary', {}, `${warnings.length} warnings in the log`),
                                  html('pre', {tabindex: 0}, warnings.join('\n'))));
  const add = (title, text) => {
    if (text) parts.push(html('details', {}, html('summary', {}, title), html('pre', {tabindex: 0}, text)));
  };
  add('Last lines of the log', (run.last_lines || []).join('\n'));
  add('Profile', run.profile);
  add('Recipe', run.recipe);
  return parts;
}

function oneRun() {
  const sections = [
    ['Domains and time', (run) => [byDomain(run)]], ['Experts', experts],
    ['Layout and memory', (run) => [plans(run)]], ['Log and recipe', texts]
  ];
  const bodies = sections.map(([title], i) => {
    const body = html('div', {});
    const element = section(title, body);
    if (i === 0 && several) element.before(chooser());
    return body;
  });
  const show = (run) => sections.forEach(
      ([, build], i) => bodies[i].replaceChildren(...build(run).filter((part) => part !== null)));
  function chooser() {
    const id = newId();
    const select = html('select', {id}, ...runs.map((run, i) => html('option', {value: i}, run.name)));
    select.addEventListener('change', () => show(runs[select.value]));
    return html('div', {class: 'controls', style: 'margin-top: 2.4rem'}, html('label', {for: id
                }, 'What follows is of one run:'), select);
  }
  show(runs[0]);
}

notes();
summary();
training();
oneRun();
