import java.awt.Component;
import java.awt.Container;
import java.awt.Window;
import java.awt.event.ActionEvent;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.FutureTask;
import java.util.function.Predicate;
import javax.swing.AbstractButton;
import javax.swing.Action;
import javax.swing.JComboBox;
import javax.swing.JTabbedPane;
import javax.swing.JTextArea;
import javax.swing.JTextField;
import javax.swing.JTree;
import javax.swing.SwingUtilities;
import javax.swing.text.JTextComponent;
import uk.ac.starlink.topcat.ControlWindow;
import uk.ac.starlink.topcat.Driver;
import uk.ac.starlink.topcat.TopcatModel;
import uk.ac.starlink.topcat.TopcatTapTableLoadDialog;
import uk.ac.starlink.vo.UwsJob;
import uk.ac.starlink.vo.UwsJobListPanel;

/**
 * Starts TOPCAT and uses its TAP window as a person would: names the service, waits for its tables, writes a statement, chooses how it
 * is to run, presses the button, and waits for the table in TOPCAT's list. Widgets are found by what they show.
 *
 * <p>Arguments: address, then statement and mode of each query. The mode is sync or async; or abort or delete, which is what is then
 * done to the asynchronous job while it runs. Prints a line of what it got for each step, and under it the rows of a table.
 */
public class DriveTopcat {
    private static final long PATIENCE_MS = 60_000;

    public static void main(String[] args) throws Exception {
        try {
            drive(args);
            System.exit(0);
        } catch (Throwable error) {
            error.printStackTrace();
            for (Window window : Window.getWindows()) {
                if (window.isVisible()) dump(window, 0);
            }
            System.exit(1);
        }
    }

    private static void drive(String[] args) throws Exception {
        Driver.main(new String[0]);
        ControlWindow control = await("TOPCAT", () -> onScreen(() -> ControlWindow.getInstance(false)));
        Action open = onScreen(() -> control.getLoadWindow().getDialogAction(TopcatTapTableLoadDialog.class));
        SwingUtilities.invokeLater(() -> open.actionPerformed(new ActionEvent(control, 0, "TAP")));
        JTextField place = await("the field of the address", () -> find(JTextField.class, DriveTopcat::isPlace));
        onScreen(() -> {
            place.setText(args[0]);
            place.postActionEvent();
            return null;
        });
        press("Use Service");
        JTree tree = await("the tables", () -> find(JTree.class, one -> one.isShowing() && leaves(one).size() > 2));
        System.out.println("TABLES " + String.join(" ", onScreen(() -> leaves(tree))));
        for (int i = 1; i + 1 < args.length; i += 2) {
            switch (args[i + 1]) {
                case "sync" -> query(control, args[i], "Synchronous");
                case "async" -> query(control, args[i], "Asynchronous");
                case "abort" -> end(args[i], "Abort");
                case "delete" -> end(args[i], "Delete");
                default -> throw new IllegalArgumentException(args[i + 1]);
            }
        }
    }

    private static void query(ControlWindow control, String text, String mode) throws Exception {
        int before = onScreen(() -> control.getTablesListModel().getSize());
        ask(text, mode);
        TopcatModel made = await("rows of " + text, () -> onScreen(() -> {
            int count = control.getTablesListModel().getSize();
            return count > before ? control.getTablesListModel().getElementAt(count - 1) : null;
        }));
        long rows = made.getDataModel().getRowCount();
        StringBuilder names = new StringBuilder();
        for (int i = 0; i < made.getDataModel().getColumnCount(); i++) {
            names.append(' ').append(made.getDataModel().getColumnInfo(i).getName());
        }
        System.out.println("LOADED " + mode + " " + rows + names);
        for (long row = 0; row < rows; row++) {
            StringBuilder cells = new StringBuilder("ROW");
            for (int i = 0; i < made.getDataModel().getColumnCount(); i++) cells.append(' ').append(made.getDataModel().getCell(row, i));
            System.out.println(cells);
        }
        SwingUtilities.invokeAndWait(() -> control.getLoadWindow().getDialogAction(TopcatTapTableLoadDialog.class)
                .actionPerformed(new ActionEvent(control, 0, "TAP")));
    }

    private static void ask(String text, String mode) throws Exception {
        show("Use Service");
        JTextComponent area = await("the text", () -> find(JTextArea.class, one -> one.isShowing() && one.isEditable()));
        JComboBox<?> modes = await("the modes", () -> find(JComboBox.class, one -> one.isShowing() && item(one, mode) != null));
        onScreen(() -> {
            modes.setSelectedItem(item(modes, mode));
            area.setText(text);
            return null;
        });
        press("Run Query");
    }

    /** Presses a button of the running job, and waits until its list says that it has happened. */
    private static void end(String text, String label) throws Exception {
        UwsJobListPanel list = await("the list of jobs", () -> find(UwsJobListPanel.class, one -> true));
        int before = onScreen(() -> list.getJobs().length);
        ask(text, "Asynchronous");
        UwsJob job = await("the job", () -> onScreen(() -> {
            UwsJob[] jobs = list.getJobs();
            return jobs.length > before ? jobs[jobs.length - 1] : null;
        }));
        await("its run", () -> "EXECUTING".equals(job.getLastInfo() == null ? "" : job.getLastInfo().getPhase()) ? job : null);
        show("Running Jobs");
        AbstractButton keeps = await("Delete On Exit", () -> find(AbstractButton.class,
                one -> one.isShowing() && "Delete On Exit".equals(one.getText())));
        onScreen(() -> {
            if (keeps.isSelected()) keeps.doClick();
            return null;
        });
        press(label);
        if (label.equals("Abort")) {
            await("its end", () -> "ABORTED".equals(job.getLastInfo().getPhase()) ? job : null);
        } else {
            await("its leave", () -> onScreen(() -> List.of(list.getJobs()).contains(job)) ? null : job);
        }
        System.out.println("JOB " + label + " " + job.getJobUrl());
    }

    private static void show(String title) throws Exception {
        await(title, () -> onScreen(() -> {
            for (Window window : Window.getWindows()) {
                JTabbedPane tabs = window.isVisible()
                        ? find(window, JTabbedPane.class, one -> one.isShowing() && one.indexOfTab(title) >= 0) : null;
                if (tabs != null) {
                    tabs.setSelectedIndex(tabs.indexOfTab(title));
                    return tabs;
                }
            }
            return null;
        }));
    }

    private static boolean isPlace(JTextField field) {
        if (!field.isShowing() || !field.isEditable()) return false;
        Container place = field;
        for (int up = 0; up < 3 && place.getParent() != null; up++) {
            place = place.getParent();
            for (Component one : place.getComponents()) {
                if (shown(one).startsWith("TAP URL")) return true;
            }
        }
        return false;
    }

    private static void press(String label) throws Exception {
        AbstractButton button = await(label, () -> find(AbstractButton.class,
                one -> one.isShowing() && one.isEnabled() && label.equals(one.getText())));
        SwingUtilities.invokeLater(button::doClick);
    }

    private static Object item(JComboBox<?> box, String words) {
        for (int i = 0; i < box.getItemCount(); i++) {
            if (String.valueOf(box.getItemAt(i)).equalsIgnoreCase(words)) return box.getItemAt(i);
        }
        return null;
    }

    private static List<String> leaves(JTree tree) {
        List<String> found = new ArrayList<>();
        collect(tree, tree.getModel().getRoot(), found);
        return found;
    }

    private static void collect(JTree tree, Object node, List<String> found) {
        if (tree.getModel().isLeaf(node)) found.add(tree.convertValueToText(node, false, false, true, 0, false).replace(' ', '_'));
        for (int i = 0; i < tree.getModel().getChildCount(node); i++) collect(tree, tree.getModel().getChild(node, i), found);
    }

    private static String shown(Component one) {
        if (one instanceof javax.swing.JLabel label) return String.valueOf(label.getText());
        if (one instanceof AbstractButton button) return String.valueOf(button.getText());
        if (one instanceof JTextComponent text) return text.getText();
        return "";
    }

    private static <T extends Component> T find(Class<T> kind, Predicate<T> fits) throws Exception {
        return onScreen(() -> {
            for (Window window : Window.getWindows()) {
                T found = window.isVisible() ? find(window, kind, fits) : null;
                if (found != null) return found;
            }
            return null;
        });
    }

    private static <T extends Component> T find(Container place, Class<T> kind, Predicate<T> fits) {
        for (Component one : place.getComponents()) {
            if (kind.isInstance(one) && fits.test(kind.cast(one))) return kind.cast(one);
            T found = one instanceof Container inner ? find(inner, kind, fits) : null;
            if (found != null) return found;
        }
        return null;
    }

    private static void dump(Component one, int depth) {
        System.err.println(" ".repeat(depth) + one.getClass().getName() + " " + shown(one).replace('\n', ' '));
        if (one instanceof Container inner) {
            for (Component each : inner.getComponents()) dump(each, depth + 1);
        }
    }

    private static <T> T await(String what, Callable<T> ask) throws Exception {
        long end = System.currentTimeMillis() + PATIENCE_MS;
        while (System.currentTimeMillis() < end) {
            T found = ask.call();
            if (found != null) return found;
            SwingUtilities.invokeAndWait(DriveTopcat::closeErrors);
            Thread.sleep(100);
        }
        throw new IllegalStateException("there is no sign of " + what);
    }

    /** Registries that TOPCAT asks by itself may be out of reach. */
    private static void closeErrors() {
        for (Window window : Window.getWindows()) {
            if (window.isVisible() && window.getClass().getSimpleName().equals("ErrorDialog")) {
                dump(window, 0);
                window.dispose();
            }
        }
    }

    private static <T> T onScreen(Callable<T> work) throws Exception {
        FutureTask<T> task = new FutureTask<>(work);
        SwingUtilities.invokeLater(task);
        return task.get();
    }
}
